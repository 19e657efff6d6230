"""Outlines drawn by hand, kept as polygons in small JSON files → label maps."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOID = 255


@dataclass(frozen=True)
class Outlines:
    """Polygons over one photo.

    Attributes:
        image: file name of the photo.
        size: (width, height) in pixels.
        classes: names; a polygon of the class "void" marks what even a careful look cannot tell.
        polygons: (class, (N, 2) points as x, y in pixels, the photo's corner being 0, 0); later ones lie on top.
    """

    image: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    polygons: tuple[tuple[str, np.ndarray], ...]

    def labels(self) -> np.ndarray:
        """(H, W) uint8 class of every pixel's centre: class 0 outside all polygons, `VOID` in void ones."""
        width, height = self.size
        labels = np.zeros((height, width), dtype=np.uint8)
        for name, points in self.polygons:
            labels[inside(points, width, height)] = VOID if name == "void" else self.classes.index(name)
        return labels


def read_outlines(path: Path) -> Outlines:
    """Reads one of the package's own outline files."""
    data = json.loads(path.read_text(encoding="utf-8"))
    polygons = tuple((p["class"], np.array(p["points"], dtype=np.float64)) for p in data["polygons"])
    return Outlines(data["image"], (data["size"][0], data["size"][1]), tuple(data["classes"]), polygons)


def inside(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels whose centre lies in a polygon, by the even-odd rule.

    Args:
        points: (N, 2) corners as x, y in pixels.
        width, height: of the image.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros((height, width), dtype=np.bool_)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crossed = np.flatnonzero((y0 <= rows) != (y1 <= rows))
        if crossed.size:
            x = x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0)
            mask[crossed] ^= columns > x[:, None]
    return mask
