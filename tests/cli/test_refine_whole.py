"""`ddps refine` with a whole model, which goes from an image to a mask and needs no prediction."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace

from ..whole_models import NETWORK, TINY_WHOLE, whole_refiner

pytest.importorskip("transformers")

CONFIG = replace(
    TINY_WHOLE,
    network=replace(NETWORK, num_classes=4),
    labels=LabelSpace(3, ("sky", "road", "car"), void_first=True),
    inference=InferenceConfig(steps=2, mix=0.5),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return whole_refiner(CONFIG).save_pretrained(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def refiner(model):
    return DDPSRefiner.from_pretrained(model, device="cpu")


@pytest.fixture
def refine(run, model):
    def command(*arguments):
        return run("refine", *arguments, "--model", model, "--device", "cpu")

    return command


def contents(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("summary."))


def read(path):
    with Image.open(path) as mask:
        return np.array(mask)


class TestImage:
    def test_writes_what_the_library_answers(self, refine, refiner, data_set, tmp_path):
        image, out = data_set.images / "a.png", tmp_path / "mask.png"
        outcome = refine(image, "-o", out, "--steps", 3, "--seed", 4)
        assert outcome.code == 0 and outcome.err == ""
        np.testing.assert_array_equal(read(out), refiner.refine(image, steps=3, seed=4).labels)

    def test_void_goes_to_the_ignore_index(self, refine, refiner, data_set, tmp_path):
        image = data_set.images / "a.png"
        expected = refiner.refine(image, ignore_index=77).labels
        assert (expected == 77).any()
        assert refine(image, "-o", tmp_path / "mask.png", "--ignore-index", 77).code == 0
        np.testing.assert_array_equal(read(tmp_path / "mask.png"), expected)

    def test_nothing_is_said_to_have_changed(self, refine, data_set, tmp_path):
        image = data_set.images / "a.png"
        text = refine(image, "-o", tmp_path / "mask.png").out
        assert text.startswith("refined 1; ") and text.endswith(f" s per image -> {tmp_path / 'mask.png'}\n")
        assert "changed" not in text
        report = refine(image, "-o", tmp_path / "mask.png", "--overwrite", "--json").json
        assert report["refined"] == 1 and report["changed"] is None and report["seconds_per_image"] > 0
        assert report["without_prediction"] == 0 and report["failed"] == []

    def test_probabilities_and_an_overlay(self, refine, data_set, tmp_path):
        image = data_set.images / "a.png"
        assert refine(image, "-o", tmp_path / "mask.npz", "--overlay", tmp_path / "over.png").code == 0
        with np.load(tmp_path / "mask.npz") as arrays:
            assert arrays["probs"].shape == (3, 40, 56)
        assert read(tmp_path / "over.png").shape == (40, 56, 3)

    def test_an_image_that_is_not_there(self, refine, tmp_path):
        assert refine(tmp_path / "none.png", "-o", tmp_path / "mask.png").is_bad_input()

    def test_an_image_that_cannot_be_read(self, refine, tmp_path):
        (tmp_path / "cut.png").write_bytes(b"not an image")
        assert refine(tmp_path / "cut.png", "-o", tmp_path / "mask.png").is_bad_input()
        assert not (tmp_path / "mask.png").exists()


class TestFolder:
    def test_every_image_gets_its_mask(self, refine, refiner, data_set, tmp_path):
        out = tmp_path / "out"
        outcome = refine(data_set.images, "-o", out, "--overlay", tmp_path / "over")
        assert outcome.code == 0 and outcome.out.startswith("refined 3; ") and "changed" not in outcome.out
        assert contents(out) == ["a.png", "b.png", "c.png"] and contents(tmp_path / "over") == [
            "a.jpg",
            "b.jpg",
            "c.jpg",
        ]
        np.testing.assert_array_equal(read(out / "b.png"), refiner.refine(data_set.images / "b.png").labels)

    def test_resume_does_the_missing_ones_only(self, refine, data_set, tmp_path):
        out = tmp_path / "out"
        assert refine(data_set.images, "-o", out).code == 0
        (out / "b.png").unlink()
        report = refine(data_set.images, "-o", out, "--resume", "--json").json
        assert report["refined"] == 1 and report["skipped"] == 2 and report["changed"] is None
        assert contents(out) == ["a.png", "b.png", "c.png"]

    def test_a_corrupt_image_is_reported_and_skipped(self, refine, data_set, tmp_path):
        (data_set.images / "b.png").write_bytes(b"not an image")
        outcome = refine(data_set.images, "-o", tmp_path / "out", "--json")
        assert outcome.code == 1 and contents(tmp_path / "out") == ["a.png", "c.png"]
        assert [item["name"] for item in outcome.json["failed"]] == ["b"]
        assert outcome.err.startswith("ddps: error: expected b.png: ")

    def test_images_are_never_written_over(self, refine, data_set):
        before = (data_set.images / "a.png").read_bytes()
        assert refine(data_set.images, "-o", data_set.images, "--overwrite").is_bad_input()
        assert (data_set.images / "a.png").read_bytes() == before


class TestWithPrediction:
    def test_it_is_mixed_in_and_compared_with(self, refine, refiner, data_set, tmp_path):
        image, prediction = data_set.images / "a.png", data_set.predictions / "a.npz"
        report = refine(image, prediction, "-o", tmp_path / "mask.png", "--json").json
        expected = refiner.refine(image, prediction)
        assert 0 < expected.changed.mean() < 1
        assert report["changed"] == pytest.approx(100 * expected.changed.mean())
        np.testing.assert_array_equal(read(tmp_path / "mask.png"), expected.labels)
        assert (expected.labels != refiner.refine(image).labels).any()

    def test_images_without_one_are_left_out(self, refine, data_set, tmp_path):
        (data_set.predictions / "b.npz").unlink()
        report = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json").json
        assert report["refined"] == 2 and report["without_prediction"] == 1 and report["changed"] > 0


class TestOtherModels:
    @pytest.mark.parametrize("folder", [False, True])
    def test_weights_that_refine_predictions_need_one(self, run, data_set, tiny_model_dir, tmp_path, folder):
        image = data_set.images if folder else data_set.images / "a.png"
        for model in ("universal", tiny_model_dir):
            out = tmp_path / ("out" if folder else "mask.png")
            before = contents(tmp_path)
            outcome = run("refine", image, "-o", out, "--model", model, "--device", "cpu")
            assert outcome.is_bad_input() and "PREDICTION" in outcome.err and str(model) in outcome.err
            assert contents(tmp_path) == before

    def test_a_head_alone_is_refused(self, run, data_set, tmp_path):
        head = whole_refiner(replace(CONFIG, backbone=None)).save_pretrained(tmp_path / "head")
        image, prediction = data_set.images / "a.png", data_set.predictions / "a.npz"
        for inputs in ((image,), (image, prediction)):
            outcome = run("refine", *inputs, "-o", tmp_path / "mask.png", "--model", head, "--device", "cpu")
            assert outcome.is_bad_input() and "features" in outcome.err
