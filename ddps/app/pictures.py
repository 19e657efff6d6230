"""Pictures that the page shows. Pillow and numpy only."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..visualize import Colour, colourise

LONG_SIDE = 1600
"""Of a picture on the page, in pixels; smaller images keep their size."""
STEP_SIDE = 320
"""The same for one step of the strip."""
CHANGED: Colour = (214, 0, 90)
"""Colour of changed pixels: no grey of the picture below it comes near."""


def fit(photo: Image.Image, long_side: int = LONG_SIDE) -> Image.Image:
    """The photo in RGB, scaled down to a long side; smaller ones stay as they are."""
    scale = min(1.0, long_side / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    picture = photo.convert("RGB")
    return picture if size == photo.size else picture.resize(size, Image.Resampling.LANCZOS)


def masked(
    photo: Image.Image,
    labels: NDArray[np.integer],
    palette: Sequence[Colour],
    bare: int | None = None,
    alpha: float = 0.5,
    long_side: int = LONG_SIDE,
) -> Image.Image:
    """The photo with its mask's colours over it, scaled down to a long side.

    Args:
        photo: of the labels' size.
        labels: (H, W) class ids; pixels without a colour, such as void, show the bare photo.
        palette: colour of id 0, 1, 2, ...
        bare: a class that is not coloured either, such as the background.
        alpha: weight of the mask, in [0, 1].
        long_side: in pixels.
    """
    shown = (labels >= 0) & (labels < len(palette))
    if bare is not None:
        shown &= labels != bare
    opacity = shown[:, :, None] * np.uint8(round(255 * alpha))
    # Pillow resizes RGBA with its colours weighted by opacity, so that edges do not darken.
    layer = Image.fromarray(np.concatenate([colourise(labels, palette), opacity], axis=2))
    small = fit(photo, long_side)
    if layer.size != small.size:
        layer = layer.resize(small.size, Image.Resampling.BOX)
    return Image.alpha_composite(small.convert("RGBA"), layer).convert("RGB")


def changes(photo: Image.Image, changed: NDArray[np.bool_], long_side: int = LONG_SIDE) -> Image.Image:
    """The photo in pale grey, changed pixels in a strong colour.

    Args:
        photo: of the size of `changed`.
        changed: (H, W).
        long_side: in pixels.
    """
    small = fit(photo, long_side)
    grey = 127 + np.asarray(small.convert("L"), dtype=np.float32)[:, :, None] / 2
    mask = Image.fromarray(changed.astype(np.uint8) * 255).resize(small.size, Image.Resampling.BOX)
    # Thin changes would fade in a smaller picture: a third of a pixel is enough for the full colour.
    weight = np.minimum(1, np.asarray(mask, dtype=np.float32)[:, :, None] / 85)
    mixed = (1 - weight) * grey + weight * np.array(CHANGED, dtype=np.float32)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def most_changed(changed: NDArray[np.bool_], count: int, share: float = 0.2) -> list[tuple[int, int, int, int]]:
    """The square windows with most changed pixels, none overlapping another.

    Args:
        changed: (H, W).
        count: of windows, at most.
        share: side of a window, as a share of the image's longer side; at least 32 pixels, at most the image.

    Returns:
        (left, top, right, bottom) in pixels, those with most changes first; none without changes.
    """
    height, width = changed.shape
    side = min(max(32, round(share * max(height, width))), height, width)
    sums = np.zeros((height + 1, width + 1), dtype=np.int64)
    sums[1:, 1:] = changed.cumsum(0).cumsum(1)
    stride = max(1, side // 8)
    tops = np.unique(np.append(np.arange(0, height - side + 1, stride), height - side))
    lefts = np.unique(np.append(np.arange(0, width - side + 1, stride), width - side))
    below, right = tops[:, None] + side, lefts[None] + side
    inside = sums[below, right] - sums[tops[:, None], right] - sums[below, lefts[None]] + sums[tops[:, None], lefts]
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(count):
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        if inside[row, column] <= 0:
            break
        top, left = int(tops[row]), int(lefts[column])
        boxes.append((left, top, left + side, top + side))
        inside[np.ix_(np.abs(tops - top) < side, np.abs(lefts - left) < side)] = 0
    return boxes


def magnified(picture: Image.Image, side: int = 360) -> Image.Image:
    """A crop at a fixed size, its pixels kept apart, so that outlines are seen as they are."""
    return picture.resize((side, side), Image.Resampling.NEAREST)


def data_uri(picture: Image.Image) -> str:
    """The picture as an address that holds it, so that the page needs no further request."""
    file = io.BytesIO()
    # without chroma subsampling, which would blur coloured outlines
    picture.convert("RGB").save(file, format="JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
