"""A user's segmentor by name: predictions that are really out of fold, resumed, and one line where it fails."""

import json

import numpy as np
import pytest
from PIL import Image

from ddps.errors import InputError
from ddps.predictions import read_prediction_file
from ddps.training.journal import Journal
from ddps.training.sets import read_data_set
from ddps.training.user_segmentor import find_callable, out_of_fold, ready_made

CODE = """
import numpy as np

def predict(image):
    return np.stack([1 - image[:, :, 0] / 255.0, image[:, :, 0] / 255.0])

number = 7
"""


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "run", 1, 0)


class Segmentor:
    """Remembers what it was trained on, and says so in its prediction: one value per fit."""

    def __init__(self):
        self.fits: list[tuple[list[str], list[str]]] = []

    def __call__(self, images, masks):
        self.fits.append(([path.stem for path in images], [path.stem for path in masks]))
        share = len(self.fits) / 10

        def predict(image):
            assert image.dtype == np.uint8 and image.shape == (64, 64, 3)
            return np.stack([np.full((16, 16), share), np.full((16, 16), 1 - share)])

        return predict


def fold_of(path) -> int:
    values, kind = read_prediction_file(path)
    assert kind == "probs" and values.shape == (2, 16, 16)
    return round(float(values[0, 0, 0]) * 10)


def test_every_image_is_predicted_by_a_segmentor_that_did_not_see_it(make_set, journal, tmp_path):
    folder, fit = make_set(train=7, val=2), Segmentor()
    train, val = (read_data_set(folder, split, None) for split in ("train", "val"))
    out_of_fold(fit, "m:fit", train, [("val", val)], 3, tmp_path / "out", journal)
    assert len(fit.fits) == 3
    for image, _ in train.pairs:
        images, masks = fit.fits[fold_of(tmp_path / "out" / "train" / f"{image.stem}.npz") - 1]
        assert image.stem not in images and images == masks and 4 <= len(images) <= 5
    assert {fold_of(path) for path in (tmp_path / "out" / "val").iterdir()} == {3}
    (source,) = read_data_set(folder, "train", tmp_path / "out").sources
    assert len(source.files) == 7


def test_what_is_there_is_not_made_again(make_set, journal, tmp_path):
    train, fit = read_data_set(make_set(train=6), "train", None), Segmentor()
    out_of_fold(fit, "m:fit", train, [], 3, tmp_path / "out", journal)
    (tmp_path / "out" / "train" / "train2.npz").unlink()
    again = Segmentor()
    out_of_fold(again, "m:fit", train, [], 3, tmp_path / "out", journal)
    assert [images for images, _ in again.fits] == [["train0", "train1", "train4", "train5"]]
    with pytest.raises(InputError, match="another --out"):
        out_of_fold(again, "m:fit", train, [], 2, tmp_path / "out", journal)


@pytest.mark.parametrize("folds", [1, 7])
def test_folds_that_cannot_be(make_set, journal, tmp_path, folds):
    train = read_data_set(make_set(train=6), "train", None)
    with pytest.raises(InputError, match="folds"):
        out_of_fold(Segmentor(), "m:fit", train, [], folds, tmp_path / "out", journal)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "kind"),
    [(np.zeros((64, 64), dtype=np.int64), "labels"), (np.random.default_rng(0).normal(size=(2, 8, 8)) * 5, "probs")],
)
def test_label_maps_and_logits(make_set, journal, tmp_path, values, kind):
    train = read_data_set(make_set(train=2), "train", None)
    ready_made(lambda image: values, "m:predict", [("train", train)], tmp_path / "out", journal)
    found, what = read_prediction_file(tmp_path / "out" / "train" / "train0.npz")
    assert what == kind and found.shape == values.shape
    if kind == "probs":
        assert np.allclose(found.sum(0), 1, atol=1e-2)
        assert (found.argmax(0) == values.argmax(0)).all()


def failing(image):
    raise RuntimeError("out of\nmemory")


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (failing, "RuntimeError: out of memory"),
        (lambda image: np.zeros((3, 4, 4)) - 1, "2 classes"),
        (lambda image: np.full((2, 4, 4), np.nan), "finite"),
        (lambda image: None, "train0"),
        (lambda image: np.zeros(5), "shape"),
    ],
)
def test_a_segmentor_that_fails(make_set, journal, tmp_path, predict, message):
    train = read_data_set(make_set(train=2), "train", None)
    with pytest.raises(InputError, match=message) as caught:
        ready_made(predict, "m:predict", [("train", train)], tmp_path / "out", journal)
    assert "\n" not in str(caught.value) and "m:predict" in str(caught.value)
    with pytest.raises(InputError, match=r"m:fit\(images, masks\)"):
        out_of_fold(lambda i, m: failing(i), "m:fit", train, [], 2, tmp_path / "other", journal)


def test_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "my_own_segmentor.py").write_text(CODE)
    (tmp_path / "my_broken_segmentor.py").write_text("import no_such_module_at_all")
    monkeypatch.chdir(tmp_path)
    values = find_callable("my_own_segmentor:predict")(np.full((4, 4, 3), 255, dtype=np.uint8))
    assert values.shape == (2, 4, 4) and values[1].min() == 1
    for name, message in (
        ("predict", "module:callable"),
        ("my_own_segmentor:", "module:callable"),
        ("my_own_segmentor:number", "callable number"),
        ("my_own_segmentor:nothing", "callable nothing"),
        ("no_such_module_at_all:f", "no_such_module_at_all"),
        ("my_broken_segmentor:f", "my_broken_segmentor"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            find_callable(name)
        assert "\n" not in str(caught.value)


def test_where_predictions_come_from_is_kept(make_set, journal, tmp_path):
    train = read_data_set(make_set(train=2), "train", None)
    ready_made(lambda image: np.zeros((4, 4), dtype=np.int64), "m:p", [("train", train)], tmp_path / "out", journal)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == {"predictor": "m:p", "images": 2}
    Image.open(train.pairs[0][0]).close()
