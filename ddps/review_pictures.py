"""Small pictures of what refinement changed: the image, its labels before and after, and the difference."""

from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .visualize import Colour, Palette, colourise, default_palette

LONG_SIDE = 320
"""Of a small picture, in pixels; smaller images keep their size."""
CHANGED: Colour = (214, 0, 90)
"""Colour of changed pixels: no grey of the picture below it comes near."""


def small_pictures(
    image: Image.Image,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    changed: NDArray[np.bool_],
    palette: Sequence[Colour],
) -> dict[str, Image.Image]:
    """Pictures of one item.

    Args:
        image: in RGB.
        before, after: (H, W) class ids, of the image's size.
        changed: (H, W).
        palette: colour of id 0, 1, 2, ...; other ids, such as void, are black.

    Returns:
        "image", "before", "after" and "difference" → picture.
    """
    scale = min(1.0, LONG_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    rows = (np.arange(height) + 0.5) * image.height // height
    columns = (np.arange(width) + 0.5) * image.width // width
    grid = np.ix_(rows.astype(np.int64), columns.astype(np.int64))
    return {
        "image": small,
        "before": Image.fromarray(colourise(before[grid], palette)),
        "after": Image.fromarray(colourise(after[grid], palette)),
        "difference": _difference(small, changed),
    }


def tells_apart(palette: Palette, ids: Collection[int]) -> bool:
    """Whether a palette has a colour of its own for each of these classes, and for void, which is black.

    Args:
        palette: colour of id 0, 1, 2, ..., or empty.
        ids: of classes.
    """
    colours = [palette[index] for index in ids if index < len(palette)]
    # Black as class 0 is the background of many data sets; beside it void goes unseen, and nobody minds.
    black = any(palette[index] == (0, 0, 0) for index in ids if 0 < index < len(palette))
    return len(ids) > 0 and len(set(colours)) == len(ids) and not black


def full_palette(palette: Palette, most: int) -> Palette:
    """A palette for ids up to `most`: its own colours, and after them ours.

    Args:
        palette: colour of id 0, 1, 2, ..., or empty.
        most: the largest id.
    """
    # In powers of two: few sizes to make, and ours begin alike in all of them.
    ours = _default_palette(max(256, 1 << most.bit_length()))
    return palette + ours[len(palette) :]


@lru_cache(maxsize=8)
def _default_palette(count: int) -> Palette:
    return default_palette(count)


def _difference(small: Image.Image, changed: NDArray[np.bool_]) -> Image.Image:
    """The image in pale grey, changed pixels in a strong colour. A pixel of which only a part changed is shown, too."""
    grey = 127 + np.asarray(small.convert("L"), dtype=np.float32)[:, :, None] / 2
    mask = Image.fromarray(changed.astype(np.uint8) * 255).resize(small.size, Image.Resampling.BOX)
    # Thin changes would fade in a small picture: a third of a pixel is enough for the full colour.
    weight = np.minimum(1, np.asarray(mask, dtype=np.float32)[:, :, None] / 85)
    mixed = (1 - weight) * grey + weight * np.array(CHANGED, dtype=np.float32)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
