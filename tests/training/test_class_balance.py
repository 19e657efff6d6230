"""Weights of classes: rare ones weigh more, the average pixel 1."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddps.training.class_balance import HEAVIEST, class_shares, class_weights
from ddps.training.sets import read_data_set


def test_shares_leave_void_out(make_set):
    folder = make_set(classes=3, train=2)
    mask = np.full((64, 64), 255, dtype=np.uint8)
    mask[:16], mask[16:20] = 0, 2
    for path in (folder / "train" / "masks").iterdir():
        Image.fromarray(mask).save(path)
    shares = class_shares(read_data_set(folder, "train", None))
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.0, 0.2], dtype=torch.float64))


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_the_average_pixel_weighs_1(power):
    shares = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    weights = class_weights(shares, power)
    assert weights.shape == (256,) and float((weights[:3] * shares).sum()) == pytest.approx(1)
    ratio = float(weights[2] / weights[0])
    assert ratio == pytest.approx(7**power)
    assert (weights[3:] == 1).all()


def test_no_class_weighs_without_bounds():
    weights = class_weights(torch.tensor([0.999999, 1e-6, 0.0], dtype=torch.float64), 1.0)
    assert weights[1] == weights[2] == HEAVIEST
    assert (class_weights(torch.zeros(3, dtype=torch.float64), 0.5) == 1).all()
