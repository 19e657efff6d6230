"""The paper's augmentations: random resize and crop, flip, photometric distortion.

Source: DDPS, arXiv 2306.01721, section 4.1, which uses those of SSD (arXiv 1512.02325, section 3.6) and
mmsegmentation; written anew here. Everything random comes from the generator that is handed in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..corruption import chance, uniform
from .config import DataConfig

CROP_TRIES = 10
BRIGHTNESS = 32 / 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180
"""Largest shift of the hue, as a share of the circle."""


def draw_window(mask: Tensor, config: DataConfig, void: int, generator: torch.Generator) -> Tensor:
    """Where a training crop looks at an image.

    Args:
        mask: (H, W) int64 the true mask, whose classes decide which crops are drawn again.
        config: sizes.
        void: label that counts as no class.
        generator: source of every random choice.

    Returns:
        (1, h, w, 2) sampling grid for `look`, h and w at most the side of the crop: less where the resized image is.
    """
    height, width = mask.shape
    factor = uniform(*config.resize, generator)
    if config.fit:
        long, short = config.fit
        factor *= min(long / max(height, width), short / min(height, width))
    tall, wide = max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
    for _ in range(CROP_TRIES):
        rows = _axis(tall, config.crop, generator)
        columns = _axis(wide, config.crop, generator)
        grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), -1)[None]
        if _is_mixed(look_nearest(mask, grid), config.most_of_one_class, void):
            break
    return grid.flip(2) if chance(config.flip, generator) else grid


def look(image: Tensor, grid: Tensor) -> Tensor:
    """(C, H, W) values at a grid of `draw_window`, bilinear: (C, h, w)."""
    return F.grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


def look_nearest(labels: Tensor, grid: Tensor) -> Tensor:
    """(H, W) int64 labels at a grid of `draw_window`: (h, w) int64."""
    height, width = labels.shape
    # Indices, not grid_sample: its float32 would not hold every label. A position between two pixels, as every one is
    # at half the size, must not fall to either side by rounding.
    x = ((grid[0, 0, :, 0] + 1) * width / 2 + 1e-3).floor().long().clamp(0, width - 1)
    y = ((grid[0, :, 0, 1] + 1) * height / 2 + 1e-3).floor().long().clamp(0, height - 1)
    return labels[y][:, x]


def fill(values: Tensor, side: int, value: Tensor | int) -> Tensor:
    """(..., h, w) to (..., side, side): padded at the bottom and on the right.

    Args:
        values: of (C, h, w) or (h, w).
        side: at least h and w.
        value: for all, or (C,) per channel.
    """
    filled = values.new_empty((*values.shape[:-2], side, side))
    filled[:] = value[:, None, None] if isinstance(value, Tensor) else value
    filled[..., : values.shape[-2], : values.shape[-1]] = values
    return filled


def distort(image: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast (before or after the colours), saturation and hue, each with chance 1/2.

    Args:
        image: (3, H, W) RGB in [0, 1].
        generator: source of every random choice.

    Returns:
        (3, H, W) in [0, 1].
    """

    shift = uniform(-BRIGHTNESS, BRIGHTNESS, generator) if chance(0.5, generator) else 0.0
    contrast_first = chance(0.5, generator)
    contrast = uniform(*CONTRAST, generator) if chance(0.5, generator) else 1.0
    gain = uniform(*SATURATION, generator) if chance(0.5, generator) else 1.0
    turn = uniform(-HUE, HUE, generator) if chance(0.5, generator) else 0.0
    image = (image + shift).clamp(0, 1)
    if contrast_first:
        image = (image * contrast).clamp(0, 1)
    if gain != 1 or turn:
        hue, saturation, value = to_hsv(image)
        image = to_rgb((hue + turn) % 1, (saturation * gain).clamp(0, 1), value)
    return image if contrast_first else (image * contrast).clamp(0, 1)


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, H, W) RGB in [0, 1] to hue (share of the circle), saturation and value, (H, W) each."""
    value, first = image.max(0)
    span = value - image.amin(0)
    red, green, blue = image
    safe = span.clamp(min=1e-8)
    turns = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe])
    hue = turns.gather(0, first[None])[0] / 6 % 1
    return hue, span / value.clamp(min=1e-8), value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`."""
    offset = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
    k = (offset + hue * 6) % 6
    return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)


def _axis(length: int, crop: int, generator: torch.Generator) -> Tensor:
    """Positions in [-1, 1] of a random window of a resized axis of `length` pixels."""
    start = int(torch.randint(max(0, length - crop) + 1, (), generator=generator))
    return (torch.arange(min(crop, length)) + start + 0.5) * 2 / length - 1


def _is_mixed(labels: Tensor, most: float, void: int) -> bool:
    if most >= 1:
        return True
    counts = labels[labels != void].bincount()
    return len(counts) > 0 and float(counts.max()) <= most * float(counts.sum())
