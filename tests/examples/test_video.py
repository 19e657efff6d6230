"""examples/video.py, examples/still_sequence.py and examples/instance_masks.py, with a tiny refiner."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script, *arguments, code=0):
    command = [sys.executable, EXAMPLES / script, *map(str, arguments), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks", "predictions"):
        (tmp_path / "set" / "test" / part).mkdir(parents=True)
    for index in range(2):
        mask = np.zeros((60, 72), np.uint8)
        mask[8 + 8 * index : 40, 6:30] = 1
        image = (120 * mask[..., None] + rng.integers(0, 80, (60, 72, 3))).astype(np.uint8)
        probs = np.where(mask == np.arange(2)[:, None, None], 0.8, 0.2).astype(np.float16)
        Image.fromarray(image).save(tmp_path / "set" / "test" / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "test" / "masks" / f"{index}.png")
        np.savez(tmp_path / "set" / "test" / "predictions" / f"{index}.npz", probs=probs)
    (tmp_path / "set" / "classes.json").write_text('{"num_classes": 2}')
    return tmp_path / "set" / "test"


def test_sequences_of_stills(photos, tmp_path, tiny_model_dir):
    folders = (photos / "images", photos / "masks", photos / "predictions", tmp_path / "work")
    options = ("--frames", 3, "--images", 1, "--things", 1, "--model", tiny_model_dir)
    out = run("still_sequence.py", *folders, *options)
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert list(report) == ["static", "pan", "zoom", "object"] and all(motion in out for motion in report)
    for figures in report.values():
        assert figures["truth"]["miou"] == 100
        assert figures["with the prior"]["flicker"] < figures["frame by frame"]["flicker"]
    assert report["static"]["truth"]["flicker"] == 0

    made = tmp_path / "work" / "static" / "0"
    classes = ("--masks", made / "masks", "--classes", photos.parent / "classes.json", "--model", tiny_model_dir)
    run("video.py", made / "frames", made / "predictions", tmp_path / "out", *classes)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report["static"]
    for folder in ("frame_by_frame", "with_prior"):
        assert len(list((tmp_path / "out" / folder).glob("*.png"))) == 3


def test_video_without_masks(photos, tmp_path, tiny_model_dir):
    arguments = (photos / "images", photos / "predictions", tmp_path / "out", "--model", tiny_model_dir)
    assert "mIoU" not in run("video.py", *arguments)
    run("video.py", *arguments, "--masks", photos / "masks", code=1)


def test_instance_masks(photos, tiny_model_dir):
    pytest.importorskip("scipy")
    arguments = (photos / "images", photos / "masks", "--classes", 1, "--model", tiny_model_dir)
    rows = json.loads(run("instance_masks.py", *arguments, "--json"))
    assert len(rows) == 9 and all(row["instances"] == 2 for row in rows)
    assert all((row["before"] == 100) == (row["rough"] == "perfect") for row in rows)
    assert "mean IoU of 2 instances" in run("instance_masks.py", *arguments, "--rough", "dilate3", "--ways", "stack")
