"""Winograd's convolution against the direct one."""

import pytest
import torch
import torch.nn.functional as F

from ddps.models import winograd
from ddps.models.winograd import WinogradConv


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (8, 12), (5, 4), (17, 30)])
@pytest.mark.parametrize("band_values", [1, winograd.BAND_VALUES])
def test_it_is_the_convolution(height, width, band_values, monkeypatch):
    monkeypatch.setattr(winograd, "BAND_VALUES", band_values)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, height, width), torch.randn(7, 5, 3, 3), torch.randn(7)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    in_double = WinogradConv(weight.double(), bias.double())(x.double())
    torch.testing.assert_close(in_double, exact, rtol=0, atol=1e-12)
    ours = WinogradConv(weight, bias)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=5e-5)
    assert ours.movedim(1, -1)[0, 0].is_contiguous()


def test_rounding_at_the_papers_width():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, 256, 16, 16), torch.randn(256, 256, 3, 3), torch.zeros(256)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert (WinogradConv(weight, bias)(x) - exact).abs().max() < 3e-5 * exact.std()


def test_what_comes_after_a_batch_of_one_stays_channels_last():
    x = torch.randn(1, 8, 8, 12).contiguous(memory_format=torch.channels_last)
    answer = WinogradConv(torch.randn(8, 8, 3, 3), torch.zeros(8))(x)
    assert torch.group_norm(answer, 4).stride(1) == 1
