"""Large images in overlapping tiles: the plan, what is finished when, and the blending window."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Strides of networks divide this. A tile that starts at a multiple of it is seen as the whole image would be: another
# phase of the strided convolutions alone changes one pixel in a hundred.
UNIT = 16


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
    """Covers an image with tiles that overlap by at least `overlap`, evenly spaced, of one size but for the last.

    There are as few as can be, and they are no larger than that needs: what two tiles share is computed twice. They
    start at multiples of 16 pixels, where `tile` leaves room for that.

    Args:
        size: (H, W) of the image.
        tile: longest side of a tile in pixels; an image that is smaller in a direction takes one tile there.
        overlap: least overlap of neighbours in pixels, less than `tile`.
    """
    rows, columns = (_spread(side, tile, overlap) for side in size)
    return [Tile(top, left, height, width) for top, height in rows for left, width in columns]


def _spread(side: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Where the tiles along a side of an image start, and how long they are."""
    if side <= tile:
        return [(0, side)]
    unit = UNIT if tile // UNIT > -(-overlap // UNIT) else 1
    longest, least, whole = tile // unit, -(-overlap // unit), -(-side // unit)
    count = 1 + -(-(whole - longest) // (longest - least))
    length = -(-(whole + (count - 1) * least) // count)
    starts = [k * (whole - length) // (count - 1) * unit for k in range(count)]
    return [(start, min(length * unit, side - start)) for start in starts]


@dataclass(frozen=True)
class Turn:
    """One tile's turn where an image is refined and written on the way, and nothing is kept for longer than needed.

    Attributes:
        tile: to refine now.
        done: the part of the image that no later tile touches, and no earlier turn has finished; all turns' parts
            cover the image once.
        until: index of the last turn whose part this tile has a say in.
    """

    tile: Tile
    done: Tile
    until: int


def plan_turns(size: tuple[int, int], tiles: list[Tile]) -> list[Turn]:
    """When which part of an image is finished.

    Args:
        size: (H, W) of the image.
        tiles: of `plan_tiles`, in its order.
    """
    tops, lefts = sorted({tile.top for tile in tiles}), sorted({tile.left for tile in tiles})
    bottoms, rights = [*tops[1:], size[0]], [*lefts[1:], size[1]]
    turns = []
    for index, tile in enumerate(tiles):
        row, column = divmod(index, len(lefts))
        done = Tile(tile.top, tile.left, bottoms[row] - tile.top, rights[column] - tile.left)
        last_row = bisect_left(tops, tile.top + tile.height) - 1
        last_column = bisect_left(lefts, tile.left + tile.width) - 1
        turns.append(Turn(tile, done, last_row * len(lefts) + last_column))
    return turns


def split(area: Tile, side: int) -> Iterator[Tile]:
    """Covers an area once, row by row, with windows of at most `side` pixels a side."""
    for top in range(area.top, area.top + area.height, side):
        for left in range(area.left, area.left + area.width, side):
            height, width = area.top + area.height - top, area.left + area.width - left
            yield Tile(top, left, min(side, height), min(side, width))


def blend_window(tile: Tile, size: tuple[int, int], overlap: int, part: Tile | None = None) -> Tensor:
    """Weight of a tile where tiles overlap: 1 inside, falling linearly over `overlap` pixels towards inner borders.

    Args:
        tile: inside an image of `size` pixels.
        part: the window of the image, inside the tile, that the weight is wanted for; None for the whole tile.

    Returns:
        (height, width) float32 of the part.
    """
    rows = _ramp(tile.height, overlap, tile.top > 0, tile.top + tile.height < size[0])
    columns = _ramp(tile.width, overlap, tile.left > 0, tile.left + tile.width < size[1])
    if part is not None:
        inside = part.slices_in(tile)
        rows, columns = rows[inside[0]], columns[inside[1]]
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


def chain_seed(seed: int, sample: int, tile: Tile) -> int:
    """A different, reproducible stream for every chain of every tile."""
    value = seed % 2**63
    for part in (sample, tile.top, tile.left):
        value = (value * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return value
