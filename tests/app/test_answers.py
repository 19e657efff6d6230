import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.app import answers
from ddps.app.answers import Options, bare_class, read_options, refine_upload, save_mask, save_probs, show_answer
from ddps.app.uploads import read_upload
from ddps.errors import InputError


@pytest.mark.parametrize("form", ["label_map", "logits", "binary"])
def test_the_answer_is_the_librarys(tiny_refiner: DDPSRefiner, files, form):
    path = getattr(files, form)
    upload = read_upload(files.photo, path)
    refined = refine_upload(tiny_refiner, upload, Options(3, "posterior", 5))
    given = (files.labels == 1).astype(np.int64) if form == "binary" else path
    direct = tiny_refiner.refine(files.photo, given, steps=3, sampler="posterior", seed=5)
    assert np.array_equal(refined.labels, direct.labels) and np.array_equal(refined.probs, direct.probs)
    assert len(refined.trajectory) == 3


def test_files_hold_the_answer(tiny_refiner, files):
    upload = read_upload(files.photo, files.logits)
    refined = refine_upload(tiny_refiner, upload, Options(2, "free", 0))
    mask, probs = save_mask(upload, refined, files.folder), save_probs(upload, refined, files.folder)
    assert (mask.name, probs.name) == ("photo_refined.png", "photo_refined.npz")
    with Image.open(mask) as picture:
        assert picture.mode == "P" and np.array_equal(np.asarray(picture), refined.labels)
    with np.load(probs) as arrays:
        assert np.array_equal(arrays["probs"], refined.probs)
        assert set(arrays) == {"probs", "labels", "uncertainty"}


def test_of_a_large_image_neither_steps_nor_probabilities_are_kept(tiny_refiner, files, monkeypatch):
    monkeypatch.setattr(answers, "MOST_RECORDED", 2 * 96 * 64 - 1)
    monkeypatch.setattr(answers, "MOST_SAVED", 3 * 96 * 64 - 1)
    upload, options = read_upload(files.photo, files.logits), Options(2, "free", 0)
    refined = refine_upload(tiny_refiner, upload, options)
    assert refined.trajectory is None and save_probs(upload, refined, files.folder) is None
    assert "step by step" not in show_answer(tiny_refiner, upload, refined, options)[1]


def test_what_is_shown_names_classes_figures_and_steps(tiny_refiner, files):
    upload = read_upload(files.photo, files.label_map, names=("wall", "box", "rug"))
    options = Options(4, "free", 0)
    refined = refine_upload(tiny_refiner, upload, options)
    comparison, details = show_answer(tiny_refiner, upload, refined, options)
    for text in ("wall", "box", "rug", "4 steps", "96 × 64", f"{100 * refined.changed.mean():.1f} %"):
        assert text in comparison
    for text in ("your mask", "step 4", "answer", "Uncertainty", "Where it changed most"):
        assert text in details
    assert "step 5" not in details


def test_a_mask_that_did_not_change_has_no_crops(tiny_refiner, files):
    Image.new("L", (96, 64), 1).save(files.label_map)
    upload, options = read_upload(files.photo, files.label_map), Options(1, "single", 0)
    comparison, details = show_answer(tiny_refiner, upload, refine_upload(tiny_refiner, upload, options), options)
    assert "1 pass" in comparison and "Where it changed most" not in details


def test_the_background_is_left_bare():
    assert bare_class(("sky", "Background"), 2) == 1
    assert bare_class((), 2) == 0
    assert bare_class((), 3) is bare_class(("road", "car"), 2) is None


class TestOptions:
    def test_are_whole_numbers(self):
        assert read_options(3.0, None, 7) == Options(3, "free", 7)

    @pytest.mark.parametrize("values", [(None, "free", 0), (2, "free", None), (2, "free", 1.5)])
    def test_others_are_refused(self, values):
        with pytest.raises(InputError, match="whole number"):
            read_options(*values)

    @pytest.mark.parametrize("options", [Options(0, "free", 0), Options(2, "fast", 0), Options(2, "free", -1)])
    def test_out_of_range_ones_are_refused_by_the_refiner(self, tiny_refiner, files, options):
        with pytest.raises(InputError):
            refine_upload(tiny_refiner, read_upload(files.photo, files.logits), options)
