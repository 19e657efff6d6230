"""What a processor did to the image, undone for what the network said about it."""

import os
from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..inputs import ImageLike, check_size, load_image, open_image

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values that swap height and width."""


def image_size(image: ImageLike) -> tuple[int, int]:
    """(H, W) of an image as `load_image` would read it, without decoding files.

    Raises:
        InputError: not an image, or unreadable.
    """
    if isinstance(image, Image.Image):
        check_size(image, "image")
        width, height = image.size
        return (width, height) if image.getexif().get(ORIENTATION) in TURNED else (height, width)
    if not isinstance(image, str | os.PathLike | np.ndarray | Tensor) or getattr(image, "ndim", 2) not in (2, 3):
        load_image(image)  # says what is wrong
    if isinstance(image, np.ndarray | Tensor):
        height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.shape[-2:]
        return int(height), int(width)
    with open_image(image) as opened:
        return image_size(opened)


def upper_left(values: Tensor, rows: float, columns: float) -> Tensor:
    """The part of a padded prediction that shows the image, on a grid of its own.

    Args:
        values: (..., h, w).
        rows, columns: its height and width in cells, above 0 and at most h and w; not necessarily whole.

    Returns:
        (..., ceil(rows), ceil(columns)), resized linearly where the border cuts through cells.
    """
    for axis, side in ((-2, rows), (-1, columns)):
        cells = ceil(side - 1e-6)
        if abs(cells - side) < 1e-6:
            values = values.narrow(axis, 0, cells)
        else:
            centres = (torch.arange(cells, dtype=torch.float64, device=values.device) + 0.5) * (side / cells) - 0.5
            values = sample(values, centres, axis)
    return values


def sample(values: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Linear interpolation along one axis; cell i has its centre at position i."""
    length = values.shape[axis]
    positions = positions.clamp(0, length - 1)
    low = positions.floor().long()
    high = (low + 1).clamp(max=length - 1)
    shape = [1] * values.ndim
    shape[axis] = len(positions)
    weight = (positions - low).to(values.dtype).reshape(shape)
    return values.index_select(axis, low) * (1 - weight) + values.index_select(axis, high) * weight


def proportional(grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """Rows and columns of a grid that an image takes which was scaled to fit and padded on the right or below.

    Args:
        grid: (h, w) of the prediction.
        size: (H, W) of the image.
    """
    scale = min(grid[0] / size[0], grid[1] / size[1])
    return size[0] * scale, size[1] * scale


def from_mask(mask: Tensor, grid: tuple[int, int]) -> tuple[float, float]:
    """Rows and columns of a grid that a processor's pixel mask leaves to the image.

    Args:
        mask: (H, W), 1 for the image and 0 for padding on the right or below.
        grid: (h, w) of the prediction.

    Raises:
        InputError: the image is not the upper left rectangle.
    """
    inside = mask != 0
    rows, columns = int(inside.any(1).sum()), int(inside.any(0).sum())
    if not rows or not bool(inside[:rows, :columns].all()) or int(inside.sum()) != rows * columns:
        hint = "cropping the logits yourself"
        raise InputError("a pixel mask with padding on the right or below", "another one", hint)
    return grid[0] * rows / mask.shape[0], grid[1] * columns / mask.shape[1]


def join_patches(patches: Sequence[tuple[Tensor, int, int]], axis: int) -> Tensor:
    """Overlapping patches of one image, each a window of its longer side, as one map; where they overlap, their mean.

    Args:
        patches: (K, h, w) logarithms and the first and last + 1 pixel of every patch.
        axis: -2 or -1, along which they lie.

    Returns:
        (K, h', w') logarithms of the mean, at the resolution of the patches.
    """
    first, start, end = patches[0]
    cells_per_pixel = first.shape[axis] / (end - start)
    pixels = max(end for _, _, end in patches)
    cells = max(1, round(pixels * cells_per_pixel))
    centres = (torch.arange(cells, dtype=torch.float64, device=first.device) + 0.5) * (pixels / cells)
    shape = list(first.shape)
    shape[axis] = cells
    total, times = first.new_zeros(shape), torch.zeros(cells, device=first.device)
    for values, start, end in patches:
        inside = ((centres >= start) & (centres < end)).nonzero().flatten()
        seen = sample(values, (centres[inside] - start) * cells_per_pixel - 0.5, axis).exp()
        total.index_add_(axis % total.ndim, inside, seen)
        times[inside] += 1
    return (total.movedim(axis, -1) / times.clamp(min=1)).movedim(-1, axis).log()
