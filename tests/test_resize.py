import pytest
import torch
import torch.nn.functional as F

from ddps.resize import LinearAxis, nearest_index

PAIRS = [(1, 1), (1, 9), (9, 1), (4, 16), (16, 4), (7, 13), (13, 7), (5, 5)]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("axis", [0, 1])
def test_every_window_of_a_linear_resize(source, target, axis):
    plane = torch.randn((source, 3) if axis == 0 else (3, source), generator=torch.Generator().manual_seed(0))
    size = (target, 3) if axis == 0 else (3, target)
    whole = F.interpolate(plane[None, None].double(), size=size, mode="bilinear", align_corners=False)[0, 0].float()
    for start in range(target):
        for length in range(1, target - start + 1):
            linear = LinearAxis(start, length, source, target, plane.device)
            held = plane[linear.span] if axis == 0 else plane[:, linear.span]
            expected = whole.narrow(axis, start, length)
            torch.testing.assert_close(linear.resize(held, axis), expected, atol=1e-6, rtol=1e-6)


def test_a_window_needs_only_its_part_of_the_source():
    linear = LinearAxis(40, 8, 100, 400, torch.device("cpu"))
    assert linear.span == slice(9, 13)


@pytest.mark.parametrize(("source", "target"), [*PAIRS, (3, 1000), (999, 1000), (7, 4096)])
def test_nearest_takes_the_pixel_under_the_centre(source, target):
    expected = [min(source - 1, (2 * i + 1) * source // (2 * target)) for i in range(target)]
    assert nearest_index(0, target, source, target).tolist() == expected
    assert nearest_index(target // 2, 1, source, target).tolist() == expected[target // 2 : target // 2 + 1]
    pixels = torch.arange(source, dtype=torch.float64)[None, None]
    assert F.interpolate(pixels, size=target, mode="nearest-exact")[0, 0].tolist() == expected
