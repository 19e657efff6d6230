"""The scripts that wrap other libraries' segmentors run as they stand, with real models that have random weights."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSRefiner

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, capsys, tiny_refiner):
    """Runs a script here, not in a process of its own, where torchvision's CUDA wheel could not be imported."""
    monkeypatch.setattr(DDPSRefiner, "from_pretrained", classmethod(lambda cls: tiny_refiner))

    def run(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        state = torch.get_rng_state()
        torch.manual_seed(0)
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        finally:
            torch.set_rng_state(state)
        return capsys.readouterr().out

    return run


@pytest.fixture
def photo(tmp_path):
    """97 x 130 pixels: not square, and no multiple of anything."""
    path = tmp_path / "photo.png"
    _picture(97, 130).save(path)
    return path


def _picture(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] += 120
    return Image.fromarray(pixels)


def labels_of(path: Path, size: tuple[int, int] = (97, 130)) -> np.ndarray:
    labels = np.array(Image.open(path))
    assert labels.shape == size
    return labels


def test_segformer(run, photo, tmp_path):
    pytest.importorskip("transformers", reason="wraps a segmentor of transformers")
    assert "% of the pixels changed" in run("segformer.py", photo, "-o", tmp_path / "mask.png")
    assert labels_of(tmp_path / "mask.png").max() < 5


def test_segformer_with_weights(run, photo, tmp_path):
    transformers = pytest.importorskip("transformers", reason="wraps a segmentor of transformers")
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    config = transformers.SegformerConfig(num_labels=3, **sizes)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "weights")
    transformers.SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "weights")
    run("segformer.py", photo, "-o", tmp_path / "mask.png", "--weights", tmp_path / "weights")
    assert labels_of(tmp_path / "mask.png").max() < 3


def test_mask2former_over_photos_of_several_sizes(run, photo, tmp_path):
    pytest.importorskip("transformers", reason="wraps a segmentor of transformers")
    pytest.importorskip("scipy", reason="Mask2Former's module imports it")
    _picture(120, 60).save(tmp_path / "upright.png")
    out = run("mask2former.py", photo, tmp_path / "upright.png", "-o", tmp_path / "masks")
    assert "photo.png" in out and "upright.png" in out
    assert labels_of(tmp_path / "masks" / "photo.png").max() < 5
    labels_of(tmp_path / "masks" / "upright.png", (120, 60))


def test_deeplabv3(run, photo, tmp_path):
    pytest.importorskip("torchvision", reason="wraps a segmentor of torchvision")
    run("deeplabv3.py", photo, "-o", tmp_path / "mask.png")
    assert labels_of(tmp_path / "mask.png").max() < 21


@pytest.mark.parametrize("classes", [1, 4])
def test_smp(run, photo, tmp_path, classes):
    pytest.importorskip("segmentation_models_pytorch", reason="wraps a segmentor of it")
    run("smp_unet.py", photo, "-o", tmp_path / "mask.png", "--classes", classes)
    assert labels_of(tmp_path / "mask.png").max() < max(2, classes)


def test_mmseg(run, photo, tmp_path):
    pytest.importorskip("mmseg", reason="wraps a segmentor of mmsegmentation")
    run("mmseg_model.py", photo, "-o", tmp_path / "mask.png")
    assert labels_of(tmp_path / "mask.png").max() < 5


def test_sam(run, photo, tmp_path):
    pytest.importorskip("transformers", reason="wraps a SAM of transformers")
    out = run("sam_masks.py", photo, "40,30", "90,60", "-o", tmp_path / "masks.npz")
    assert "2 masks" in out
    assert np.load(tmp_path / "masks.npz")["masks"].shape == (2, 97, 130)


def test_numpy(run, photo, tmp_path):
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).normal(size=(4, 12, 16)).astype(np.float32))
    out = run("numpy_prediction.py", photo, tmp_path / "logits.npy", "-o", tmp_path / "mask.png")
    assert "4 classes" in out
    assert labels_of(tmp_path / "mask.png").max() < 4
