"""Outlines of regions as polygons, the way an annotator clicks them: traced, simplified, filled."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Ring = NDArray[np.float64]


def trace(mask: NDArray[np.bool_]) -> list[Ring]:
    """Closed outlines of a region along its pixels' edges.

    Args:
        mask: (H, W) pixels of the region.

    Returns:
        One (n, 2) array of corners (x, y) per ring, without the first one repeated; an outer ring has a positive area
        (`ring_area`), a hole a negative one. Pixels that touch at a corner only may share a ring.
    """
    padded = np.pad(mask, 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # a pixel's side towards the outside, walked with the region on the right, y downwards
    for (dy, dx), start, end in (
        ((-1, 0), (0, 0), (0, 1)),
        ((0, 1), (0, 1), (1, 1)),
        ((1, 0), (1, 1), (1, 0)),
        ((0, -1), (1, 0), (0, 0)),
    ):
        outside = ~np.roll(padded, (-dy, -dx), (0, 1))
        for y, x in (np.argwhere(padded & outside) - 1).tolist():
            after.setdefault((x + start[1], y + start[0]), []).append((x + end[1], y + end[0]))
    rings = []
    while after:
        first = next(iter(after))
        corner, ring = first, []
        while True:
            ring.append(corner)
            ways = after[corner]
            following = ways.pop()
            if not ways:
                del after[corner]
            corner = following
            if corner == first:
                break
        rings.append(np.array(ring, dtype=np.float64))
    return rings


def ring_area(ring: Ring) -> float:
    """Signed area in pixels, positive for an outer ring of `trace`."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Fewer corners, so that no left-out one is further than `tolerance` pixels from the outline.

    Source: D. Douglas, T. Peucker, Algorithms for the reduction of the number of points required to represent a
    digitized line or its caricature, 1973; a ring is cut at its first corner and at the one furthest from it.
    """
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    kept = np.zeros(len(closed), dtype=bool)
    kept[[0, far]] = True
    pieces = [(0, far), (far, len(ring))]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        chord = closed[last] - closed[first]
        offsets = closed[first + 1 : last] - closed[first]
        length = math.hypot(*chord)
        if length > 0:
            distances = np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / length
        else:
            distances = np.hypot(offsets[:, 0], offsets[:, 1])
        furthest = int(distances.argmax())
        if distances[furthest] > tolerance:
            middle = first + 1 + furthest
            kept[middle] = True
            pieces += [(first, middle), (middle, last)]
    return closed[:-1][kept[:-1]]


def draw_polygons(labels: NDArray[np.int64], under: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """Every connected region's outline simplified and filled, large ones first.

    Args:
        labels: (H, W) class ids, below 2^31.
        under: (H, W) class ids where no polygon comes to lie.
        tolerance: see `simplify`.
    """
    rings = []
    for label in np.unique(labels).tolist():
        # holes are left out: what lies in them is drawn later
        rings += [(ring_area(ring), label, ring) for ring in trace(labels == label) if ring_area(ring) > 0]
    canvas = Image.fromarray(under.astype(np.int32))
    draw = ImageDraw.Draw(canvas)
    for _, label, ring in sorted(rings, key=lambda item: -item[0]):
        corners = simplify(ring, tolerance)
        if len(corners) > 2:
            draw.polygon([(x - 0.5, y - 0.5) for x, y in corners.tolist()], fill=label)
    return np.array(canvas).astype(np.int64)
