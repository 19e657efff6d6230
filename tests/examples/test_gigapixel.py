"""The example makes its mosaic, refines it and reports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "gigapixel.py"


def run(model: Path, folder: Path, *options: object) -> dict[str, object]:
    pytest.importorskip("skimage", reason="its wheel holds the photos")
    arguments = ("--side", 600, "--photo", 150, "--steps", 1, "--model", model, "--device", "cpu", "--folder", folder)
    command = [sys.executable, EXAMPLE, *map(str, (*arguments, *options))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_gigapixel(tiny_model_dir, tmp_path, suffix):
    if suffix == "tif":
        tifffile = pytest.importorskip("tifffile", reason="writes and reads TIFFs")
    figures = run(tiny_model_dir, tmp_path, "--format", suffix)
    assert figures["size"] == [600, 600] and 0 < figures["changed_percent"] < 100
    read = np.load if suffix == "npy" else tifffile.imread
    image, prediction, labels = (read(tmp_path / f"{name}.{suffix}") for name in ("image", "prediction", "labels"))
    assert image.shape == (600, 600, 3) and image.std() > 20
    assert prediction.shape == labels.shape == (600, 600) and len(np.unique(prediction)) > 4
    assert np.array_equal(labels == 255, prediction == 255)
