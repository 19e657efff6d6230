"""What a run finds on disk: layouts, predictions, and one line for what is not whole."""

import shutil
from itertools import pairwise

import pytest

from ddps.errors import InputError
from ddps.training.sets import hold_out, read_data_set, taught_images


def test_pairs_classes_and_names(make_set):
    folder = make_set("set", classes=3, train=4, val=2)
    data = read_data_set(folder, "train", None)
    assert data.name == "set" and data.num_classes == 3 and data.ignore_index == 255 and data.sources == []
    assert data.names == ("c0", "c1", "c2")
    assert [image.stem for image, mask in data.pairs] == [mask.stem for image, mask in data.pairs]
    assert len(data.pairs) == 4 and len(read_data_set(folder, "val", None).pairs) == 2


def test_a_data_set_that_is_not_whole(make_set, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        read_data_set(tmp_path / "none", "train", None)
    with pytest.raises(InputError, match="no folder"):
        read_data_set(make_set(), "val", None)
    (make_set("a") / "train" / "masks" / "train1.png").unlink()
    with pytest.raises(InputError, match=r"no train1\.png"):
        read_data_set(tmp_path / "a", "train", None)
    (make_set("b") / "classes.json").unlink()
    with pytest.raises(InputError, match=r"no .*classes\.json"):
        read_data_set(tmp_path / "b", "train", None)
    for path in (make_set("c") / "train" / "images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="images in"):
        read_data_set(tmp_path / "c", "train", None)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"num_classes": "many"}',
        '{"num_classes": null}',
        '{"num_classes": 1e400}',
        '{"num_classes": 0}',
        '{"num_classes": 1000000000000}',
        "[" * 90_000,
    ],
    ids=lambda text: text[:24],
)
def test_a_classes_file_that_says_nothing(make_set, text):
    folder = make_set()
    (folder / "classes.json").write_text(text)
    with pytest.raises(InputError, match=r"classes\.json"):
        read_data_set(folder, "train", None)


def test_predictions_are_found(make_set, predict, tmp_path):
    folder = make_set("set", classes=3)
    predict(folder, tmp_path / "root" / "one")
    predict(folder, tmp_path / "root" / "two", merge=[0, 1, 1])
    one, two = read_data_set(folder, "train", tmp_path / "root").sources
    assert (one.name, two.name) == ("one", "two") and one.merge is None and two.merge.tolist() == [0, 1, 1]
    assert set(one.files) == {"train0", "train1", "train2"}
    shutil.copytree(tmp_path / "root", tmp_path / "shared" / "set")
    assert len(read_data_set(folder, "train", tmp_path / "shared", several=True).sources) == 2
    assert read_data_set(make_set("other"), "train", tmp_path / "root", several=True).sources == []
    predict(folder, tmp_path / "flat")
    assert len(read_data_set(folder, "train", tmp_path / "flat").sources) == 1


def test_predictions_that_do_not_fit(make_set, predict, tmp_path):
    folder = make_set()
    with pytest.raises(InputError, match="no folder"):
        read_data_set(folder, "train", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="predictions of the train split"):
        read_data_set(folder, "train", tmp_path / "empty")
    predict(folder, tmp_path / "root")
    (tmp_path / "root" / "train" / "train0.png").rename(tmp_path / "root" / "train" / "stranger.png")
    with pytest.raises(InputError, match="such as stranger"):
        read_data_set(folder, "train", tmp_path / "root")


def test_a_set_without_splits(make_set, predict, tmp_path):
    folder = make_set(train=6)
    for part in ("images", "masks"):
        (folder / "train" / part).rename(folder / part)
    (folder / "train").rmdir()
    data = read_data_set(folder, "train", None)
    assert len(data.pairs) == 6 and data.pairs[0][0].parent == folder / "images"
    (tmp_path / "flat" / "train").mkdir(parents=True)
    for image, _ in data.pairs:
        shutil.copy(folder / "masks" / image.name, tmp_path / "flat")
    (tmp_path / "flat" / "train").rmdir()
    (source,) = read_data_set(folder, "train", tmp_path / "flat").sources
    assert len(source.files) == 6
    with pytest.raises(InputError, match="no folder"):
        read_data_set(folder, "val", None)


@pytest.mark.parametrize(
    ("images", "share", "held"), [(20, 0.2, 4), (5, 0.2, 1), (4, 0.2, 0), (20, 0.0, 0), (7, 0.9, 6)]
)
def test_images_to_validate_on(make_set, images, share, held):
    data = read_data_set(make_set(train=images), "train", None)
    train, val = hold_out(data, share)
    assert len(val.pairs) == held and sorted(train.pairs + val.pairs) == sorted(data.pairs)
    assert set(train.pairs).isdisjoint(val.pairs) and train.num_classes == val.num_classes == data.num_classes


def test_images_to_validate_on_lie_apart(make_set):
    data = read_data_set(make_set(train=9), "train", None)
    _, val = hold_out(data, 0.33)
    assert [data.pairs.index(pair) for pair in val.pairs] == [1, 4, 7]


@pytest.mark.parametrize(("count", "share"), [(10, 0.6), (367, 0.6), (20, 0.5), (30, 0.2), (50, 0.9)])
def test_images_that_teach_and_others_take_turns(count, share):
    taught, refined = taught_images(count, share)
    assert sorted(taught + refined) == list(range(count))
    assert len(taught) == pytest.approx(share * count, abs=2) and taught and refined
    seams = sum(b - a > 1 for a, b in pairwise(taught))
    assert seams == 1


@pytest.mark.parametrize(("count", "share"), [(9, 0.6), (50, 1.0)])
def test_all_images_for_both(count, share):
    assert taught_images(count, share) == (list(range(count)), list(range(count)))
