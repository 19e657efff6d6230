"""A true mask as a hasty annotator or a coarse tool leaves it: label maps that do not say where they are unsure.

Outlines cut short like polygons, coarse grids shown in blocks, classes grown over their neighbours or eaten by them,
and, every fifth time, the truth itself, which has to stay as it is.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .corruption import chance, hard_labels, smooth_noise, uniform

PERFECT_SHARE = 0.2
LARGEST_RADIUS = 9


def rough_labels(truth: Tensor, generator: torch.Generator) -> Tensor:
    """One or two kinds of roughness, or none.

    Args:
        truth: (S, H, W) one-hot ground truth; void pixels may hold any distribution.
        generator: source of every random choice.

    Returns:
        (S, H, W) one-hot label map.
    """
    labels = hard_labels(truth, 1.0)
    if chance(PERFECT_SHARE, generator):
        return labels
    first = int(uniform(0, len(KINDS), generator))
    labels = KINDS[first](labels, generator)
    if chance(0.2, generator):
        labels = KINDS[int(uniform(0, len(KINDS), generator))](labels, generator)
    return labels


def blocks(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The class at the centre of every cell of a coarse grid, 3 to 20 px wide, at any offset."""
    cell = math.exp(uniform(math.log(3), math.log(20), generator))
    indices = []
    for side in labels.shape[-2:]:
        start = uniform(0, cell, generator)
        cells = ((torch.arange(side) + 0.5 + start) / cell).floor()
        indices.append(((cells + 0.5) * cell - start).long().clamp(0, side - 1))
    return labels[:, indices[0]][:, :, indices[1]]


def polygons(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Corners and thin parts cut off, outlines along chords that leave the true ones by a few pixels."""
    radius = int(uniform(1, 7, generator))
    side = 2 * radius + 1
    softened = F.avg_pool2d(F.pad(labels[None], (radius,) * 4, mode="replicate"), side, 1)
    pixels, cell = uniform(0, 2.5, generator), uniform(12, 50, generator)
    height, width = labels.shape[-2:]
    # A bilinear field bends lines only at its knots.
    knots = pixels * torch.randn((1, 2, *(math.ceil(s / cell) + 1 for s in (height, width))), generator=generator)
    flow = F.interpolate(knots, (height, width), mode="bilinear", align_corners=True)[0]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([(columns + flow[0] + 0.5) * 2 / width - 1, (rows + flow[1] + 0.5) * 2 / height - 1], -1)
    moved = F.grid_sample(softened, grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    return hard_labels(moved, 1.0)


def brush(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Classes, one after another in random order, grown by one radius over the others; some left as they are."""
    radius = int(uniform(1, LARGEST_RADIUS, generator))
    steps = torch.arange(-radius, radius + 1)
    disc = (steps[:, None] ** 2 + steps**2 <= radius**2).float()[None, None]
    share = 1.0 if chance(0.6, generator) else uniform(0.2, 1, generator)
    grown = labels
    for index in torch.randperm(len(labels), generator=generator).tolist():
        if not chance(share, generator):
            continue
        near = F.conv2d(labels[index][None, None], disc, padding=radius)[0, 0] > 0.5
        own = F.one_hot(torch.tensor(index), len(labels)).float()[:, None, None]
        grown = torch.where(near, own, grown)
    return grown


def coarse_argmax(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The argmax of soft outlines at a low resolution, with wobbles: a small network's label map."""
    stride = (2, 4, 8, 16)[int(uniform(0, 4, generator))]
    size = labels.shape[-2:]
    coarse = F.interpolate(labels[None], [max(1, side // stride) for side in size], mode="area")
    noise = uniform(0, 0.5, generator) * smooth_noise(len(labels), coarse.shape[-2:], 2, generator)
    return hard_labels(F.interpolate(coarse + noise, size, mode="bilinear", align_corners=False)[0], 1.0)


KINDS = (blocks, blocks, polygons, polygons, brush, brush, coarse_argmax)
