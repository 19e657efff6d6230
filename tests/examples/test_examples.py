"""The example scripts run as their docstrings say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def data_set(tmp_path):
    """Four training pairs of 64 x 64 and one to validate, three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for part in ("images", "masks"):
            (tmp_path / "set" / split / part).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((64, 64), np.uint8)
            mask[8 * index : 40, 10:50] = 1
            mask[50:, :] = 2
            image = (80 * mask[..., None] + rng.integers(0, 40, (64, 64, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "set" / split / "images" / f"{index}.jpg")
            Image.fromarray(mask).save(tmp_path / "set" / split / "masks" / f"{index}.png")
    about = {"classes": ["wall", "box", "floor"], "num_classes": 3, "ignore_index": 255}
    (tmp_path / "set" / "classes.json").write_text(json.dumps(about))
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["unet", "dilated", "pyramid"])
def test_out_of_fold(data_set, tmp_path, kind):
    (tmp_path / "groups.json").write_text(json.dumps({"rest": ["wall", "floor"], "box": ["box"]}))
    options = ("--kind", kind, "--minutes", 0.01, "--size", 64, "--groups", tmp_path / "groups.json")
    out = run("out_of_fold.py", data_set, tmp_path / "out", *options)
    assert "out of fold: mIoU" in out
    assert sorted(p.name for p in (tmp_path / "out" / "train").iterdir()) == [f"{i}.npz" for i in range(4)]
    probs = np.load(tmp_path / "out" / "val" / "0.npz")["probs"]
    assert probs.shape[0] == 2 and np.abs(probs.astype(np.float32).sum(0) - 1).max() < 0.01
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["merge"] == [0, 1, 0]


def test_one_fold_holds_nothing_out(data_set, tmp_path):
    out = run("out_of_fold.py", data_set, tmp_path / "out", "--folds", 1, "--minutes", 0.01, "--size", 64)
    assert "val: mIoU" in out and not (tmp_path / "out" / "train").exists()
    assert len(list((tmp_path / "out" / "val").iterdir())) == 1


def test_region_masks(data_set, tmp_path):
    run("region_masks.py", data_set, tmp_path / "regions")
    about = json.loads((tmp_path / "regions" / "classes.json").read_text())
    for index in range(4):
        mask = np.array(Image.open(tmp_path / "regions" / "train" / "masks" / f"{index}.png"))
        image = Image.open(tmp_path / "regions" / "train" / "images" / f"{index}.jpg")
        assert mask.shape == image.size[::-1] and mask.max() < about["num_classes"]
    # the box of the image is a region of its own
    inside, outside = mask[30, 20], mask[4, 55]
    assert inside != outside


def test_foreground_predictions(data_set, tmp_path, shared):
    pytest.importorskip("onnxruntime", reason="the segmentor is an ONNX file: pip install '.[onnx]'")
    model = shared / "segmentors" / "deeplabv3_mobilenetv2_voc_257.onnx"
    run("foreground_predictions.py", model, data_set, tmp_path / "out")
    probs = np.load(tmp_path / "out" / "train" / "0.npz")["probs"]
    assert probs.shape == (2, 65, 65)
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["merge"] == [0, 1, 1]


def test_onnx_segmentor(tmp_path, shared):
    pytest.importorskip("onnxruntime", reason="the segmentor is an ONNX file: pip install '.[onnx]'")
    pytest.importorskip("skimage", reason="the photos come with scikit-image: pip install '.[demo]'")
    model = shared / "segmentors" / "deeplabv3_mobilenetv2_voc_257.onnx"
    out = run("onnx_segmentor.py", model, "-o", tmp_path / "picture.png")
    assert "person" in out and "cat" in out
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 1000


def test_cost():
    pytest.importorskip("skimage", reason="the photo comes with scikit-image: pip install '.[demo]'")
    out = run("cost.py", "--size", "96x64", "--classes", 3, "--device", "cpu", "--repeat", 2)
    assert out.startswith("96x64, 3 classes, cpu") and "peak memory" in out


def test_convert_cost():
    """A real encoder with a narrow head; the real size takes minutes."""
    said = run("convert_cost.py", "--encoder", "MiT-B0", "--width", 16, "--size", "70x40")
    assert "0 parameters" not in said and "converting 0." in said and "refining 70x40 in 1 steps" in said


def test_findings_and_their_report(data_set, tmp_path):
    shutil.copytree(data_set / "val", data_set / "test")
    for split in ("train", "val", "test"):
        shutil.copytree(data_set / split / "masks", tmp_path / "predictions" / split)
    stages = ("--minutes", 0.01, "--first-iterations", 2, "--iterations", 2)
    short = (*stages, "--crop", 32, "--dim", 8, "--images", 1, "--batch-size", 2)
    variants = ("--variants", "single_step", "first_prediction", "segmentor")
    work = tmp_path / "work"
    command = (data_set, work, "--predictions", tmp_path / "predictions", "--seeds", 0, *short, *variants)
    out = run("findings.py", *command)
    assert "seed 0 first_prediction: measured" in out
    rows = json.loads((work / "measured" / "first_prediction_0.json").read_text())
    assert [(row["sampler"], row["steps"]) for row in rows[:6]] == [("free", steps) for steps in (1, 2, 3, 5, 10, 20)]
    assert all(0 <= row["mbiou"] <= 100 and row["images"] == 1 for row in rows)
    base = {row["segmentor"]: row for row in json.loads((work / "measured" / "base.json").read_text())}
    assert base["predictions"]["miou"] == 100  # these predictions are the truth
    assert "first_uniform" not in run("findings.py", *command)  # a second call finds everything done
    table = run("findings_report.py", work)
    assert "| 5 |" in table and "± 0.00" in table and table.count("|---") == 3


def test_tile_seams(tmp_path):
    rng = np.random.default_rng(0)
    cells = np.kron(rng.integers(0, 3, (4, 5)), np.ones((40, 40), np.int64))
    Image.fromarray((cells * 90 + rng.integers(0, 40, cells.shape)).astype(np.uint8)).save(tmp_path / "photo.png")
    np.savez(tmp_path / "seen.npz", logits=np.eye(3, dtype=np.float32)[cells].transpose(2, 0, 1)[:, ::8, ::8] * 6)
    options = ("--tiles", 112, "--picture", tmp_path / "seams.png", "--width", 100)
    out = run("tile_seams.py", tmp_path / "photo.png", tmp_path / "seen.npz", *options)
    whole, tiled = out.splitlines()
    assert whole.startswith("whole: ") and " tiles of at most 112: " in tiled
    assert Image.open(tmp_path / "seams.png").size == (400, 80)
