"""The picture of a validation."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.training.pictures import Example, save_examples
from ddps.visualize import default_palette


@pytest.fixture
def example(tmp_path):
    Image.fromarray(np.full((60, 80, 3), 90, dtype=np.uint8)).save(tmp_path / "a.png")
    labels = [torch.full((60, 80), k) for k in (0, 1, 255)]
    return Example("set/seg", tmp_path / "a.png", *labels, default_palette(3), ("x", "y", "z"))


def test_image_prediction_refined_and_truth_in_a_row(example, tmp_path):
    save_examples([example], 200, tmp_path / "run")
    (path,) = (tmp_path / "run" / "examples").iterdir()
    assert path.name == "step_000200.png"
    pixels = np.asarray(Image.open(path))
    row = pixels[50].tolist()
    order = [row.index(colour) for colour in ([90] * 3, list(example.palette[0]), list(example.palette[1]), [0, 0, 0])]
    assert order == sorted(order)


def test_a_row_for_every_segmentor(example, tmp_path):
    save_examples([example], 1, tmp_path)
    save_examples([example, example], 2, tmp_path)
    one, two = (Image.open(tmp_path / "examples" / f"step_00000{step}.png").height for step in (1, 2))
    assert two == 2 * one
    save_examples([], 3, tmp_path)
    assert len(list((tmp_path / "examples").iterdir())) == 2
