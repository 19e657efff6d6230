"""Windows, flips and colours: exact where they can be, in bounds everywhere."""

import colorsys
from dataclasses import replace

import pytest
import torch

from ddps.training.paper.augment import distort, draw_window, fill, look, look_nearest, to_hsv, to_rgb

from .conftest import tiny_recipe

PLAIN = replace(tiny_recipe().data, resize=(1.0, 1.0), crop=16, flip=0.0, most_of_one_class=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int = 20, width: int = 24) -> torch.Tensor:
    """Every pixel another label, which says where it came from."""
    return torch.arange(height * width).view(height, width)


def test_a_crop_at_its_own_size_is_a_cut():
    mask = numbered()
    image = mask[None].float().expand(3, -1, -1) / 1000
    for seed in range(5):
        grid = draw_window(mask, PLAIN, -1, generator(seed))
        labels = look_nearest(mask, grid)
        top, left = int(labels[0, 0]) // 24, int(labels[0, 0]) % 24
        assert torch.equal(labels, mask[top : top + 16, left : left + 16])
        torch.testing.assert_close(look(image, grid)[0], labels / 1000, rtol=0, atol=1e-5)


def test_flipped_and_not():
    mask = numbered()
    for flip in (0.0, 1.0):
        row = look_nearest(mask, draw_window(mask, replace(PLAIN, flip=flip), -1, generator()))[0]
        assert bool((row.diff() == (-1 if flip else 1)).all())


@pytest.mark.parametrize(
    ("resize", "fit", "size"), [(0.5, (), (10, 12)), (2.0, (), (40, 48)), (1.0, (48, 30), (30, 36))]
)
def test_resized_by_the_factor_and_to_fit(resize, fit, size):
    mask = numbered()
    grid = draw_window(mask, replace(PLAIN, resize=(resize, resize), fit=fit, crop=64), -1, generator())
    assert grid.shape[1:3] == size
    labels = look_nearest(mask, grid)
    assert labels[0, 0] == (0 if resize >= 1 else 25) and labels.unique().numel() == min(480, size[0] * size[1])


def test_image_and_mask_stay_together_at_any_scale():
    mask = torch.zeros(40, 40, dtype=torch.int64)
    mask[10:30, 14:33] = 1
    image = mask[None].float().expand(3, -1, -1)
    for seed in range(8):
        grid = draw_window(mask, replace(PLAIN, resize=(0.6, 1.9), flip=0.5, crop=32), -1, generator(seed))
        apart = ((look(image, grid)[0] > 0.5) != look_nearest(mask, grid)).float().mean()
        assert apart < 0.05


def test_crops_of_one_class_are_drawn_again():
    mask = torch.zeros(80, 80, dtype=torch.int64)
    mask[:, 40:] = 1
    for most in (1.0, 0.75):
        config = replace(PLAIN, most_of_one_class=most)
        crops = [look_nearest(mask, draw_window(mask, config, -1, generator(seed))) for seed in range(60)]
        mixed = sum(0.25 <= float(crop.float().mean()) <= 0.75 for crop in crops) / len(crops)
        assert mixed < 0.4 if most == 1 else mixed > 0.6


def test_void_counts_as_no_class():
    mask = torch.full((80, 80), -1)
    mask[:8, :4], mask[:8, 4:8] = 0, 1
    config = replace(PLAIN, most_of_one_class=0.75, crop=70)
    kept = [look_nearest(mask, draw_window(mask, config, -1, generator(seed))) for seed in range(10)]
    assert sum((crop == 1).any() for crop in kept) >= 8
    draw_window(torch.full((80, 80), -1), config, -1, generator())  # nothing to look for, and it ends


def test_filled_at_the_bottom_and_on_the_right():
    filled = fill(torch.ones(3, 2, 3), 4, torch.tensor([0.1, 0.2, 0.3]))
    assert filled.shape == (3, 4, 4) and (filled[:, :2, :3] == 1).all()
    assert torch.equal(filled[:, 3, 3], torch.tensor([0.1, 0.2, 0.3]))
    assert fill(torch.ones(2, 2, dtype=torch.int64), 3, -1).tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, -1]]


def test_colours_there_and_back():
    image = torch.rand(3, 9, 11, generator=generator())
    image[:, 0] = 0.4  # grey
    image[:, 1] = 0.0
    hue, saturation, value = to_hsv(image)
    torch.testing.assert_close(to_rgb(hue, saturation, value), image, rtol=0, atol=1e-5)
    for y, x in ((3, 4), (5, 9), (8, 0)):
        expected = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
        assert (float(hue[y, x]), float(saturation[y, x]), float(value[y, x])) == pytest.approx(expected, abs=1e-4)


def test_distortions_stay_in_range_and_differ():
    image = torch.rand(3, 12, 12, generator=generator())
    before = image.clone()
    answers = [distort(image, generator(seed)) for seed in range(40)]
    assert torch.equal(image, before) and all(a.min() >= 0 and a.max() <= 1 for a in answers)
    assert all(torch.equal(a, distort(image, generator(seed))) for seed, a in enumerate(answers[:5]))
    changes = [float((a - image).abs().max()) for a in answers]
    assert max(changes) > 0.3 and sum(change > 1e-4 for change in changes) > 25
