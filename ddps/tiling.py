"""Large images in overlapping tiles: the plan and the blending window."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """A window of the image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def overlap(self, other: "Tile") -> "Tile | None":
        """The window that both share, or None."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.height, other.top + other.height)
        right = min(self.left + self.width, other.left + other.width)
        return Tile(top, left, bottom - top, right - left) if top < bottom and left < right else None

    def slices_in(self, outer: "Tile") -> tuple[slice, slice]:
        """Rows and columns of this window inside an outer one."""
        top, left = self.top - outer.top, self.left - outer.left
        return slice(top, top + self.height), slice(left, left + self.width)


def plan_tiles(size: tuple[int, int], tile: int, overlap: int) -> list[Tile]:
    """Covers an image with tiles of equal size, evenly spaced, that overlap by at least `overlap`.

    Args:
        size: (H, W) of the image.
        tile: side of a tile in pixels; an image that is smaller in a direction takes one tile there.
        overlap: least overlap of neighbours in pixels, less than `tile`.
    """
    rows, columns = (_starts(side, tile, overlap) for side in size)
    height, width = min(tile, size[0]), min(tile, size[1])
    return [Tile(top, left, height, width) for top in rows for left in columns]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    if side <= tile:
        return [0]
    count = 1 + -(-(side - tile) // (tile - overlap))
    return [round(k * (side - tile) / (count - 1)) for k in range(count)]


def blend_window(tile: Tile, size: tuple[int, int], overlap: int) -> Tensor:
    """(height, width) float32 weight: 1 inside, falling linearly over `overlap` pixels towards inner borders."""
    rows = _ramp(tile.height, overlap, tile.top > 0, tile.top + tile.height < size[0])
    columns = _ramp(tile.width, overlap, tile.left > 0, tile.left + tile.width < size[1])
    return rows[:, None] * columns


def _ramp(length: int, overlap: int, before: bool, after: bool) -> Tensor:
    ramp = torch.ones(length)
    span = min(overlap, length)
    rise = (torch.arange(span) + 0.5) / max(1, span)
    if before:
        ramp[:span] = rise
    if after:
        ramp[length - span :] *= rise.flip(0)
    return ramp.clamp(min=1e-3)
