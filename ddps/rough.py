"""Rough masks made from true ones: hasty outlines, coarse grids, a generous brush.

They measure a refiner, so they share no code with the synthetic mistakes of training.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .resize import nearest_index

Rough: TypeAlias = Literal["polygon", "stride8", "stride16", "dilate5", "perfect"]
Labels: TypeAlias = NDArray[np.int64]

POLYGON_TOLERANCE = 0.0075
"""How far a coarse outline strays from the true one, as a share of the image diagonal (4.5 px at 480 x 360)."""


def roughen(truth: Labels, kind: Rough, ignore_index: int = 255, seed: int = 0) -> Labels:
    """A rough version of a true mask.

    Args:
        truth: (H, W) int64 class ids. Its void pixels take the nearest class first, since a rough mask leaves nothing
            out; "perfect" keeps them.
        kind: "polygon": outlines simplified by Douglas and Peucker's algorithm; "stride8", "stride16": the class at
            the centre of every 8 x 8 or 16 x 16 pixels; "dilate5": every class grown by 5 px into the others, one
            after another in random order; "perfect": the mask itself.
        ignore_index: label of void pixels.
        seed: of the order of "dilate5".

    Returns:
        (H, W) int64 class ids, or (h, w) of the coarse grid for the strides.

    Raises:
        InputError: "polygon" without OpenCV.
    """
    if kind == "perfect":
        return truth.copy()
    whole = fill(truth, truth == ignore_index)
    if kind == "polygon":
        return polygonised(whole, ignore_index)
    if kind == "dilate5":
        return dilated(whole, 5, ignore_index, np.random.default_rng(seed))
    return strided(whole, 8 if kind == "stride8" else 16)


def fill(labels: Labels, empty: NDArray[np.bool_]) -> Labels:
    """Gives empty pixels the label of the nearest other pixel (city-block distance); a mask that is all empty stays."""
    labels, known = labels.copy(), ~empty
    while known.any() and not known.all():
        # Only what was known before this round is handed on: one pixel per round, the same in all directions.
        before = known.copy()
        for to, source in _neighbours():
            taken = ~known[to] & before[source]
            labels[to][taken] = labels[source][taken]
            known[to] |= taken
    return labels


def polygonised(labels: Labels, ignore_index: int = 255, tolerance: float = POLYGON_TOLERANCE) -> Labels:
    """Every connected region as a coarse polygon, large ones first, as an annotator would lay them over each other.

    Args:
        labels: (H, W) class ids.
        ignore_index: label of void pixels; they get no polygon.
        tolerance: largest distance of an outline from the true one, as a share of the image diagonal.

    Returns:
        (H, W) class ids; gaps between polygons take the nearest one's class.

    Raises:
        InputError: OpenCV is not installed.
    """
    cv2 = import_cv2("--rough polygon")
    epsilon = tolerance * math.hypot(*labels.shape)
    regions = []
    for label in np.unique(labels[labels != ignore_index]).tolist():
        mask = (labels == label).astype(np.uint8)
        outlines, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # Outlines of holes (with a parent) are left out: what lies in one is a smaller region, and so painted later.
        outer = [outline for outline, level in zip(outlines, levels[0], strict=True) if level[3] < 0]
        regions += [(cv2.contourArea(outline), label, outline) for outline in outer]
    canvas = np.full(labels.shape, -1, dtype=np.int32)
    for _, label, outline in sorted(regions, key=lambda region: -region[0]):
        cv2.fillPoly(canvas, [cv2.approxPolyDP(outline, epsilon, True)], label)
    painted = canvas.astype(np.int64)
    return fill(painted, painted < 0) if regions else labels.copy()


def strided(labels: Labels, stride: int) -> Labels:
    """(H, W) class ids → (round(H / stride), round(W / stride)), at least 1: the class at each cell's centre."""
    height, width = labels.shape
    rows, columns = (
        nearest_index(0, count, side, count).numpy()
        for side, count in ((side, max(1, round(side / stride))) for side in (height, width))
    )
    return labels[rows[:, None], columns]


def dilated(labels: Labels, radius: int, ignore_index: int, rng: np.random.Generator) -> Labels:
    """Every class grown by a disc of `radius` pixels over the others, in random order; the last one wins."""
    grown = labels.copy()
    for label in rng.permutation(np.unique(labels[labels != ignore_index])):
        grown[_within(labels == label, radius)] = label
    return grown


def import_cv2(what: str):  # type: ignore[no-untyped-def]  # a module, which may be absent
    """OpenCV with its contributed modules.

    Raises:
        InputError: it is not installed, or without its contributed modules.
    """
    try:
        import cv2

        cv2.ximgproc.createGuidedFilter  # noqa: B018  # absent from OpenCV without contrib
    except (ImportError, AttributeError):
        hint = "pip install opencv-contrib-python-headless, or leaving it out"
        raise InputError(f"OpenCV with its contributed modules for {what}", "an environment without", hint) from None
    return cv2


def _within(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Pixels at most `radius` away from the mask."""
    height, width = mask.shape
    padded = np.pad(mask, ((radius, radius), (radius + 1, radius)))
    counts = np.cumsum(padded, axis=1, dtype=np.int32)
    near = np.zeros_like(mask)
    for shift in range(-radius, radius + 1):
        half = math.isqrt(radius**2 - shift**2)
        rows = counts[radius + shift : radius + shift + height]
        near |= rows[:, radius + 1 + half :][:, :width] > rows[:, radius - half :][:, :width]
    return near


def _neighbours() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs (pixels, their neighbours) for the four directions."""
    later, earlier, every = slice(1, None), slice(None, -1), slice(None)
    down, right = ((later, every), (earlier, every)), ((every, later), (every, earlier))
    return [down, down[::-1], right, right[::-1]]
