"""The loop without torch gives the mask that `DDPSRefiner.refine` gives."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSRefiner, Refinement
from ddps.config import InferenceConfig, ScheduleConfig

from ..conftest import EXPORTED, make_tiny_refiner

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "onnx_inference.py"


@pytest.fixture(scope="module")
def script(tiny_onnx) -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_inference", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_inference"] = module
    spec.loader.exec_module(module)
    return module


def scene(height: int, width: int, classes: int, scale: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """An image of blocks, and smooth logits at 1/scale that are unsure in many places."""
    rng = np.random.default_rng(height * width + classes)
    blocks = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3))
    image = np.kron(blocks, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    coarse = torch.from_numpy(4 * rng.normal(size=(1, classes, 3, 4)).astype(np.float32))
    size = -(-height // scale), -(-width // scale)
    logits = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].numpy()
    if classes > 8:
        logits[6:] -= 4
    return image, logits


@pytest.mark.parametrize(
    ("height", "width", "classes", "kind", "options"),
    [
        (70, 90, 3, "logits", {}),
        (70, 90, 3, "probs", {"steps": 3}),
        (33, 21, 4, "logits", {"steps": 1}),
        (120, 97, 40, "logits", {}),
        (64, 80, 1, "logits", {"seed": 11}),
        (100, 60, 6, "probs", {"steps": 2, "seed": 2**40}),
        (561, 545, 5, "logits", {}),  # large enough for a coarser first pass
        (9, 7, 2, "logits", {}),
    ],
)
def test_it_gives_the_mask_that_refine_gives(script, tiny_onnx, height, width, classes, kind, options):
    image, values = scene(height, width, classes)
    if kind == "probs":
        values = np.exp(values) / np.exp(values).sum(0)
    wanted = make_tiny_refiner(EXPORTED).refine(image, values, kind=kind, **options)
    assert isinstance(wanted, Refinement)
    labels, probs = script.Refiner(tiny_onnx, threads=1).refine(image, values, kind, **options)
    assert labels.shape == (height, width) and probs.shape == np.asarray(wanted.probs).shape
    assert np.mean(labels == np.asarray(wanted.labels)) >= 0.999
    assert np.mean(np.abs(probs - np.asarray(wanted.probs))) <= 1e-4
    assert np.mean(wanted.changed) > 0.001 or height < 10


def test_other_settings_of_a_model(script, tiny_onnx):
    """The loop does what the file says, as far as the network is the same one."""
    image, logits = scene(70, 90, 3)
    inference = InferenceConfig(steps=4, mix=1.0, tile=1024)
    config = replace(EXPORTED, inference=inference, schedule=ScheduleConfig("cosine", 12, "absorbing"))
    wanted = DDPSRefiner(config, make_tiny_refiner(EXPORTED).network, device="cpu")
    from ddps.export import metadata

    mine = script.Refiner(tiny_onnx, threads=1)
    import json

    mine.facts = json.loads(metadata(wanted))
    mine.defaults, mine.alpha_bar = mine.facts["config"]["inference"], mine.facts["alpha_bar"]
    labels, _ = mine.refine(image, logits, "logits")
    answer = wanted.refine(image, logits, kind="logits")
    assert isinstance(answer, Refinement)
    assert np.mean(labels == np.asarray(answer.labels)) >= 0.999


def test_a_sure_prediction_stays(script, tiny_onnx):
    logits = np.full((3, 20, 20), -20, np.float32)
    logits[1] = 20
    labels, probs = script.Refiner(tiny_onnx, threads=1).refine(np.zeros((20, 20, 3), np.uint8), logits, "logits")
    assert (labels == 1).all() and probs[1].min() > 0.999


def run_without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, runpy; sys.modules.update(torch=None, ddps=None, einops=None);"
        "sys.argv[0:1] = []; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, SCRIPT, *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


def test_it_runs_without_torch(tiny_onnx, tmp_path):
    image, logits = scene(50, 40, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    np.savez(tmp_path / "logits.npz", logits=logits)
    options = ("-o", tmp_path / "mask.png", "--probs", tmp_path / "probs.npy", "--threads", 1)
    done = run_without_torch(tiny_onnx, tmp_path / "image.png", tmp_path / "logits.npz", *options)
    assert done.returncode == 0, done.stderr
    wanted = DDPSRefiner.from_pretrained(tiny_onnx.parent / "model", device="cpu", dtype=torch.float32).refine(
        image, logits, kind="logits"
    )
    assert isinstance(wanted, Refinement)
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.mean(np.asarray(mask) == np.asarray(wanted.labels)) >= 0.999
    assert np.load(tmp_path / "probs.npy").shape == (3, 50, 40)


def test_label_maps_are_refused_in_one_line(tiny_onnx, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    np.save(tmp_path / "labels.npy", np.zeros((8, 8), np.int64))
    done = run_without_torch(tiny_onnx, tmp_path / "image.png", tmp_path / "labels.npy", "-o", tmp_path / "mask.png")
    assert done.returncode == 1 and "expected (K, h, w)" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "mask.png").exists()


def test_the_speed_script(tiny_onnx):
    script = SCRIPT.with_name("onnx_speed.py")
    command = [sys.executable, script, tiny_onnx, "--model", tiny_onnx.parent / "model", "--sizes", "32", "--repeat", 1]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "32 x 32: torch " in done.stdout and "times torch's time" in done.stdout
