import os

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def refine(run, data_set, tiny_model_dir):
    """Runs `ddps refine` with the tiny model."""

    def command(*arguments, model=tiny_model_dir):
        return run("refine", *arguments, "--model", model, "--device", "cpu")

    return command


@pytest.fixture
def pair(data_set):
    return data_set.images / "a.png", data_set.predictions / "a.npz"


class TestPair:
    def test_writes_what_the_library_answers(self, refine, pair, tmp_path, tiny_model_dir):
        out = tmp_path / "mask.png"
        outcome = refine(*pair, "-o", out, "--seed", 3, "--num-samples", 2)
        assert outcome.code == 0 and outcome.err == ""
        refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
        expected = refiner.refine(pair[0], pair[1], seed=3, num_samples=2)
        with Image.open(out) as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.array(mask), np.asarray(expected.labels))

    def test_json_is_one_object(self, refine, pair, tmp_path):
        report = refine(*pair, "-o", tmp_path / "mask.png", "--json").json
        assert report["refined"] == 1 and report["failed"] == [] and report["output"] == str(tmp_path / "mask.png")
        assert 0 <= report["changed"] <= 100 and report["seconds_per_image"] > 0

    def test_npz_holds_probabilities(self, refine, pair, tmp_path):
        assert refine(*pair, "-o", tmp_path / "mask.npz").code == 0
        with np.load(tmp_path / "mask.npz") as arrays:
            np.testing.assert_allclose(arrays["probs"].sum(0), 1, atol=1e-4)
            np.testing.assert_array_equal(arrays["probs"].argmax(0), arrays["labels"])

    def test_a_folder_as_output_takes_the_images_name(self, refine, pair, tmp_path):
        assert refine(*pair, "-o", tmp_path).code == 0
        assert (tmp_path / "a.png").is_file()

    def test_overlay(self, refine, pair, tmp_path):
        assert refine(*pair, "-o", tmp_path / "mask.png", "--overlay", tmp_path / "over.jpg").code == 0
        with Image.open(tmp_path / "over.jpg") as picture:
            assert picture.format == "JPEG" and picture.size == (56, 40)

    def test_a_label_map_is_taken(self, refine, data_set, tmp_path):
        prediction = data_set.masks / "a.png"
        assert refine(data_set.images / "a.png", prediction, "-o", tmp_path / "mask.png").code == 0

    def test_an_output_that_exists_is_refused_and_kept(self, refine, pair, tmp_path):
        out = tmp_path / "mask.png"
        out.write_bytes(b"precious")
        assert refine(*pair, "-o", out).is_bad_input()
        assert out.read_bytes() == b"precious"
        assert refine(*pair, "-o", out, "--overwrite").code == 0
        assert out.read_bytes() != b"precious"

    def test_an_overlay_that_exists_is_refused_before_the_mask_is_written(self, refine, pair, tmp_path):
        (tmp_path / "over.png").write_bytes(b"precious")
        assert refine(*pair, "-o", tmp_path / "mask.png", "--overlay", tmp_path / "over.png").is_bad_input()
        assert not (tmp_path / "mask.png").exists()

    @pytest.mark.parametrize("out", ["mask.jpg", "mask", "missing/mask.png"])
    def test_outputs_that_cannot_be(self, refine, pair, tmp_path, out):
        assert refine(*pair, "-o", tmp_path / out).is_bad_input()

    def test_overlays_that_cannot_be(self, refine, pair, tmp_path):
        assert refine(*pair, "-o", tmp_path / "mask.png", "--overlay", tmp_path / "over.gif").is_bad_input()
        assert refine(*pair, "-o", tmp_path / "x.png", "--overlay", tmp_path / "x.png").is_bad_input()

    @pytest.mark.parametrize("option", [("--steps", 21), ("--tile", 10), ("--num-samples", 0), ("--sampler", "none")])
    def test_settings_that_cannot_be(self, refine, data_set, tmp_path, option):
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", *option).is_bad_input()
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("model", ["no-such-model", "org/\x00"])
    def test_models_that_are_not_there(self, refine, pair, tmp_path, model):
        assert refine(*pair, "-o", tmp_path / "mask.png", model=model).is_bad_input()

    def test_a_device_that_is_not_there(self, run, pair, tmp_path, tiny_model_dir):
        for device in ("cuda:99", "toaster"):
            arguments = ("-o", tmp_path / "mask.png", "--model", tiny_model_dir, "--device", device)
            assert run("refine", *pair, *arguments).is_bad_input()

    def test_classes_that_do_not_fit_the_weights(self, refine, pair, tmp_path, tiny_model_of_5_dir):
        outcome = refine(*pair, "-o", tmp_path / "mask.png", model=tiny_model_of_5_dir)
        assert outcome.is_bad_input() and "5" in outcome.err and "3" in outcome.err

    @pytest.mark.parametrize(
        "array",
        [
            np.full((3, 10, 14), np.nan, dtype=np.float32),
            np.zeros((2, 3, 10, 14), dtype=np.float32),
            np.zeros(0, dtype=np.float32),
            np.full((3, 10, 14), 0.5, dtype=np.float32),
            np.full((10, 14), -7),
            np.full((10, 14), "a"),
        ],
        ids=["nan", "batch", "empty", "ambiguous", "negative ids", "text"],
    )
    def test_bad_predictions(self, refine, pair, tmp_path, array):
        np.save(tmp_path / "bad.npy", array)
        before = contents(tmp_path)
        assert refine(pair[0], tmp_path / "bad.npy", "-o", tmp_path / "mask.png").is_bad_input()
        assert contents(tmp_path) == before

    def test_bad_images(self, refine, pair, tmp_path):
        whole = pair[0].read_bytes()
        before = None
        for name, data in (("cut.png", whole[: len(whole) // 2]), ("empty.png", b""), ("text.png", b"not an image")):
            (tmp_path / name).write_bytes(data)
            before = contents(tmp_path)
            assert refine(tmp_path / name, pair[1], "-o", tmp_path / "mask.png").is_bad_input(), name
            assert contents(tmp_path) == before
        assert refine(tmp_path / "none.png", pair[1], "-o", tmp_path / "mask.png").is_bad_input()
        assert refine(pair[0], tmp_path / "none.npz", "-o", tmp_path / "mask.png").is_bad_input()


class TestFolders:
    def test_pairs_go_by_stem(self, refine, data_set, tmp_path):
        (data_set.predictions / "b.npz").unlink()
        (data_set.images / ".hidden.png").write_bytes(b"")
        out = tmp_path / "new" / "out"
        outcome = refine(data_set.images, data_set.predictions, "-o", out, "--json")
        assert outcome.code == 0 and contents(out) == ["a.png", "c.png"]
        assert outcome.json["refined"] == 2 and outcome.json["without_prediction"] == 1

    def test_a_folder_equals_its_pairs(self, refine, data_set, pair, tmp_path):
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out").code == 0
        assert refine(*pair, "-o", tmp_path / "one.png").code == 0
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / "a.png").read_bytes()

    def test_format_and_overlays(self, refine, data_set, tmp_path):
        arguments = ("-o", tmp_path / "out", "--format", "npz", "--overlay", tmp_path / "over")
        assert refine(data_set.images, data_set.predictions, *arguments).code == 0
        assert contents(tmp_path / "out") == ["a.npz", "b.npz", "c.npz"]
        assert contents(tmp_path / "over") == ["a.jpg", "b.jpg", "c.jpg"]

    def test_resume_does_the_missing_ones_only(self, refine, data_set, tmp_path):
        out = tmp_path / "out"
        arguments = (data_set.images, data_set.predictions, "-o", out)
        assert refine(*arguments).code == 0
        whole = (out / "b.png").read_bytes()
        (out / "b.png").unlink()
        for name in ("a.png", "c.png"):
            os.utime(out / name, (1, 1))
        assert refine(*arguments).is_bad_input()
        assert contents(out) == ["a.png", "c.png"]
        report = refine(*arguments, "--resume", "--json").json
        assert report["refined"] == 1 and report["skipped"] == 2
        assert (out / "b.png").read_bytes() == whole
        assert (out / "a.png").stat().st_mtime == 1 == (out / "c.png").stat().st_mtime
        assert refine(*arguments, "--overwrite").code == 0
        assert (out / "a.png").stat().st_mtime > 1

    def test_resume_with_nothing_left_needs_no_model(self, refine, data_set, tmp_path):
        arguments = (data_set.images, data_set.predictions, "-o", tmp_path / "out")
        assert refine(*arguments).code == 0
        outcome = refine(*arguments, "--resume", "--json", model="no-such-model")
        assert outcome.code == 0 and outcome.json["skipped"] == 3 and outcome.json["changed"] is None

    def test_resume_completes_an_item_whose_overlay_is_missing(self, refine, data_set, tmp_path):
        arguments = (data_set.images, data_set.predictions, "-o", tmp_path / "out")
        assert refine(*arguments).code == 0
        assert refine(*arguments, "--resume", "--overlay", tmp_path / "over").code == 0
        assert contents(tmp_path / "over") == ["a.jpg", "b.jpg", "c.jpg"]

    def test_a_corrupt_item_is_reported_and_skipped(self, refine, data_set, tmp_path):
        (data_set.images / "a.png").write_bytes((data_set.images / "a.png").read_bytes()[:100])
        (data_set.predictions / "c.npz").write_bytes(b"PK\x03\x04 no zip")
        outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
        assert outcome.code == 1 and contents(tmp_path / "out") == ["b.png"]
        assert [item["name"] for item in outcome.json["failed"]] == ["a", "c"]
        lines = outcome.err.splitlines()
        assert len(lines) == 2 and lines[0].startswith("ddps: error: expected a.npz: ") and "c.npz" in lines[1]

    def test_a_prediction_without_an_image(self, refine, data_set, tmp_path):
        (data_set.images / "b.png").unlink()
        outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out")
        assert outcome.is_bad_input() and "b.npz" in outcome.err
        assert not (tmp_path / "out").exists()

    def test_two_files_of_one_stem(self, refine, data_set, tmp_path):
        np.save(data_set.predictions / "b.npy", np.zeros((3, 4, 4)))
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out").is_bad_input()

    def test_inputs_are_never_written_over(self, refine, data_set):
        for stem in "abc":
            (data_set.predictions / f"{stem}.npz").unlink()
        for folder in (data_set.images, data_set.masks):
            outcome = refine(data_set.images, data_set.masks, "-o", folder, "--overwrite")
            assert outcome.is_bad_input() and "input" in outcome.err

    def test_a_file_and_a_folder(self, refine, data_set, pair, tmp_path):
        assert refine(data_set.images, pair[1], "-o", tmp_path / "out").is_bad_input()
        assert refine(pair[0], data_set.predictions, "-o", tmp_path / "out").is_bad_input()
        (tmp_path / "file").write_bytes(b"")
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "file").is_bad_input()

    def test_a_bad_model_leaves_no_folder_behind(self, refine, data_set, tmp_path):
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", model="none").is_bad_input()
        assert not (tmp_path / "out").exists()

    def test_folders_with_nothing_in_them(self, refine, data_set, tmp_path):
        (tmp_path / "empty").mkdir()
        assert refine(data_set.images, tmp_path / "empty", "-o", tmp_path / "out").is_bad_input()
        assert refine(data_set.images, tmp_path / "none", "-o", tmp_path / "out").is_bad_input()
