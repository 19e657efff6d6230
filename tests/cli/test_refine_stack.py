import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.stacks import refine_masks


@pytest.fixture
def refine(run, tiny_model_dir):
    def command(*arguments, model=tiny_model_dir):
        return run("refine", *arguments, "--stack", "--model", model, "--device", "cpu")

    return command


@pytest.fixture
def image(data_set):
    return data_set.images / "a.png"


@pytest.fixture
def masks(data_set, tmp_path):
    labels = np.array(Image.open(data_set.masks / "a.png"))
    stack = np.stack([labels == 1, labels == 2, labels == 7])
    np.save(tmp_path / "masks.npy", stack)
    np.savez(tmp_path / "masks.npz", masks=stack)
    return stack


def test_writes_what_the_library_answers(refine, image, masks, tmp_path, tiny_model_dir):
    expected = refine_masks(DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu"), image, masks, seed=4)
    outcome = refine(image, tmp_path / "masks.npy", "-o", tmp_path / "out.npz", "--seed", 4, "--json")
    assert outcome.code == 0 and outcome.json["masks"] == 3
    assert outcome.json["change"] == pytest.approx(100 * expected.change, abs=1e-4) and expected.change[2] == 0
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["masks"], expected.masks)
    # .npy is a stack, too, not a large image's labels
    assert "3 masks" in refine(image, tmp_path / "masks.npz", "-o", tmp_path / "out.npy", "--seed", 4).out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected.masks)


def test_logits(refine, image, masks, tmp_path):
    np.savez(tmp_path / "logits.npz", logits=np.where(masks[:, ::2, ::2], 4.0, -4.0))
    assert refine(image, tmp_path / "logits.npz", "-o", tmp_path / "out.npy").code == 0
    assert np.load(tmp_path / "out.npy").shape == masks.shape
    outcome = refine(image, tmp_path / "logits.npz", "-o", tmp_path / "b.npy", "--kind", "probs")
    assert outcome.is_bad_input() and "logits" in outcome.err


def test_what_exists_is_kept(refine, image, masks, tmp_path):
    out = tmp_path / "out.npz"
    out.write_bytes(b"precious")
    assert refine(image, tmp_path / "masks.npy", "-o", out).is_bad_input()
    assert refine(image, tmp_path / "masks.npy", "-o", out, "--resume").code == 0
    assert out.read_bytes() == b"precious"
    assert refine(image, tmp_path / "masks.npy", "-o", out, "--overwrite").code == 0
    assert refine(image, tmp_path / "masks.npy", "-o", tmp_path).code == 0 and (tmp_path / "a.npz").is_file()


def test_bad_input(refine, image, masks, data_set, tmp_path, tiny_model_of_5_dir):
    stack, out = tmp_path / "masks.npy", ("-o", tmp_path / "out.npz")
    np.savez(tmp_path / "other.npz", stack=masks)
    np.save(tmp_path / "ids.npy", np.arange(24).reshape(2, 3, 4))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "masks.npz").read_bytes()[:100])
    before = sorted(tmp_path.iterdir())
    for arguments in (
        (image, tmp_path / "none.npy", *out),
        (image, tmp_path / "other.npz", *out),
        (image, tmp_path / "ids.npy", *out),
        (image, tmp_path / "cut.npz", *out),
        (image, data_set.masks / "a.png", *out),
        (tmp_path / "none.png", stack, *out),
        (data_set.images, stack, *out),
        (image, *out),
        (image, stack, "-o", tmp_path / "out.png"),
        (image, stack, "-o", tmp_path / "none" / "out.npz"),
        (image, stack, "-o", stack, "--overwrite"),
        (image, stack, *out, "--overlay", tmp_path / "a.jpg"),
        (image, stack, *out, "--review", 2),
        (image, stack, *out, "--kind", "labels"),
        (image, stack, *out, "--video"),
    ):
        outcome = refine(*arguments)
        assert outcome.code == 2 and outcome.out == "" and "Traceback" not in outcome.err, arguments
        assert sorted(tmp_path.iterdir()) == before
    assert refine(image, stack, *out, model=tiny_model_of_5_dir).is_bad_input()
