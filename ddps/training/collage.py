"""Collages: regions of other images pasted over a crop, each a class of its own.

Real data sets label few kinds of outlines. A collage adds the missing ones, with exact truth: thin poles and the signs
on them, horizons, blobs as ragged as trees, boxes; what fills a region comes from another training image.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .corruption import chance, smooth_noise, uniform


def pole(rows: Tensor, columns: Tensor, generator: torch.Generator) -> Tensor:
    """A thin upright line, at times with a sign on top."""
    side = rows.shape[0]
    middle, foot = uniform(0, side, generator), uniform(0.4, 1.1, generator) * side
    length, half = uniform(0.2, 0.9, generator) * side, math.exp(uniform(0, 1.6, generator))
    tilt = uniform(-0.15, 0.15, generator)
    across = half - (columns - middle - tilt * (rows - foot)).abs()
    inside = torch.minimum(across, torch.minimum(foot - rows, rows - (foot - length)))
    if chance(0.5, generator):
        radius = half + uniform(2, 14, generator)
        top, centre = foot - length, middle - tilt * length
        stretch = uniform(0.6, 1.6, generator)
        sign = radius - ((rows - top).abs() ** 2 * stretch + (columns - centre).abs() ** 2).sqrt()
        inside = torch.maximum(inside, sign)
    return inside


def horizon(rows: Tensor, columns: Tensor, generator: torch.Generator) -> Tensor:
    """A half-plane with a wavy border."""
    side = rows.shape[0]
    angle = uniform(0, 2 * math.pi, generator)
    offset = (rows - side / 2) * math.sin(angle) + (columns - side / 2) * math.cos(angle)
    waves = uniform(0, 10, generator) * smooth_noise(1, rows.shape, uniform(8, 60, generator), generator)[0]
    return offset + waves - uniform(-0.2, 0.45, generator) * side


def blob(rows: Tensor, columns: Tensor, generator: torch.Generator) -> Tensor:
    """A region with a ragged outline."""
    side = rows.shape[0]
    coarse, fine = uniform(0.15, 0.5, generator) * side, uniform(3, 12, generator)
    noise = smooth_noise(1, rows.shape, coarse, generator)[0]
    noise = noise + uniform(0, 0.3, generator) * smooth_noise(1, rows.shape, fine, generator)[0]
    return (noise - uniform(0.2, 1.0, generator)) * coarse / 2


def box(rows: Tensor, columns: Tensor, generator: torch.Generator) -> Tensor:
    """A rotated rectangle with rounded corners."""
    side = rows.shape[0]
    angle = uniform(-0.5, 0.5, generator)
    y, x = rows - uniform(0, side, generator), columns - uniform(0, side, generator)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    half_long, half_short = uniform(0.05, 0.4, generator) * side, uniform(0.04, 0.3, generator) * side
    corner = uniform(0, 0.5, generator) * min(half_long, half_short)
    far = torch.stack([along.abs() - half_long + corner, across.abs() - half_short + corner])
    outside: Tensor = far.clamp(min=0).norm(dim=0)
    return corner - outside - far.amax(0).clamp(max=0)


SHAPES = (pole, pole, horizon, blob, blob, box)


def collage(
    image: Tensor, target: Tensor, other: Callable[[], Tensor], ignore_index: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pastes one to five regions over a crop.

    Args:
        image: (3, c, c) in [0, 1].
        target: (c, c) int64 class ids.
        other: gives the crop of another image, (3, c, c), at every call.
        ignore_index: id of void, never given to a region.
        generator: source of every random choice.

    Returns:
        Image and target; the regions have ids from 200 on.
    """
    rows, columns = torch.meshgrid(*(torch.arange(s, dtype=torch.float32) for s in target.shape), indexing="ij")
    for index in range(int(uniform(1, 6, generator))):
        filling = other()
        shape = SHAPES[int(uniform(0, len(SHAPES), generator))]
        inside = shape(rows, columns, generator)
        cover = torch.sigmoid(inside / uniform(0.3, 1.0, generator))
        image = image * (1 - cover) + filling * cover
        target = torch.where((inside > 0) & (target != ignore_index), 200 + index, target)
    return image, target
