import json

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.video import VideoRefiner

HEIGHT, WIDTH, FRAMES = 40, 56, 4


@pytest.fixture
def video(tmp_path):
    """A still scene, and logits that are not as still."""
    rng = np.random.default_rng(0)
    for part in ("frames", "predictions", "labels"):
        (tmp_path / part).mkdir()
    scene = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(FRAMES):
        logits = rng.normal(size=(3, HEIGHT, WIDTH)).astype(np.float32)
        logits[1, 8:30, 10:40] += 3
        logits[0] += 1
        Image.fromarray(scene).save(tmp_path / "frames" / f"{index}.png")
        np.savez(tmp_path / "predictions" / f"{index}.npz", logits=logits)
        Image.fromarray(logits.argmax(0).astype(np.uint8)).save(tmp_path / "labels" / f"{index}.png")
    (tmp_path / "classes.json").write_text(json.dumps({"num_classes": 3}))
    return tmp_path


@pytest.fixture
def refine(run, tiny_model_dir):
    def command(*arguments):
        return run("refine", *arguments, "--video", "--model", tiny_model_dir, "--device", "cpu")

    return command


def read(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_writes_what_the_library_answers(refine, run, video, tiny_model_dir):
    out = video / "out"
    outcome = refine(video / "frames", video / "predictions", "-o", out, "--review", 0, "--json")
    assert outcome.code == 0 and outcome.json["refined"] == FRAMES and (out / "review.html").is_file()
    refiner = VideoRefiner(DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu"))
    for index in range(FRAMES):
        expected = refiner.refine(video / "frames" / f"{index}.png", video / "predictions" / f"{index}.npz")
        np.testing.assert_array_equal(read(out / f"{index}.png"), expected.labels)
    single = ("refine", video / "frames", video / "predictions", "-o", video / "single", "--model", tiny_model_dir)
    assert run(*single, "--device", "cpu").code == 0
    np.testing.assert_array_equal(read(video / "single" / "0.png"), read(out / "0.png"))
    assert (read(video / "single" / "3.png") != read(out / "3.png")).any()


def test_label_maps_need_classes(refine, video):
    folders = (video / "frames", video / "labels", "-o", video / "out")
    outcome = refine(*folders)
    assert outcome.is_bad_input() and "--classes" in outcome.err and not (video / "out").exists()
    assert refine(*folders, "--classes", video / "classes.json").code == 0
    assert set(np.unique(read(video / "out" / "3.png"))) <= {0, 1, 2}


def test_a_damaged_frame_in_the_middle(refine, video):
    (video / "frames" / "1.png").write_bytes(b"no image")
    outcome = refine(video / "frames", video / "predictions", "-o", video / "out", "--json")
    assert outcome.code == 1 and outcome.json["refined"] == FRAMES - 1
    assert [item["name"] for item in outcome.json["failed"]] == ["1"]


def test_bad_input(refine, video):
    frame, prediction = video / "frames" / "0.png", video / "predictions" / "0.npz"
    for arguments in ((frame, prediction), (video / "frames",), (video / "frames", prediction)):
        assert refine(*arguments, "-o", video / "out").is_bad_input()
        assert not (video / "out").exists()
