import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


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

    def test_options_of_folders_are_refused(self, refine, pair, tmp_path):
        for option in (("--workers", 2), ("--review", 1), ("--review-most", 5)):
            outcome = refine(*pair, "-o", tmp_path / "mask.png", *option)
            assert outcome.is_bad_input() and option[0] in outcome.err

    def test_resume(self, refine, pair, tmp_path):
        arguments = (*pair, "-o", tmp_path / "mask.png", "--resume", "--json")
        assert refine(*arguments).json["refined"] == 1
        again = refine(*arguments).json
        assert again["refined"] == 0 and again["skipped"] == 1 and again["changed"] is None

    def test_a_full_disk(self, refine, pair, tmp_path, full_disk):
        full_disk(after=0)
        outcome = refine(*pair, "-o", tmp_path / "mask.png")
        assert outcome.is_bad_input() and "No space left" in outcome.err
        assert contents(tmp_path) == ["images", "masks", "predictions"]

    def test_labels_come_back_in_the_files_own_form(self, refine, data_set, tmp_path):
        ids = np.array([7, 300, 40000], dtype=np.uint16)
        with Image.open(data_set.masks / "a.png") as mask:
            labels = ids[np.array(mask)]
        labels[:3] = 65535
        Image.fromarray(labels).save(tmp_path / "labels.png")
        arguments = (data_set.images / "a.png", tmp_path / "labels.png", "-o", tmp_path / "mask.png")
        assert refine(*arguments, "--ignore-index", 65535).code == 0
        with Image.open(tmp_path / "mask.png") as mask:
            assert mask.mode.startswith("I;16")
            answer = np.array(mask)
        assert set(np.unique(answer)) <= {*ids.tolist(), 65535}
        np.testing.assert_array_equal(answer == 65535, labels == 65535)
