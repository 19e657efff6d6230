"""Windows of a resized picture, equal to those of the whole resize and computed without it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def nearest_index(start: int, length: int, source: int, target: int) -> Tensor:
    """Source indices of target pixels start .. start + length - 1, centre to centre, in exact integers."""
    return torch.arange(start, start + length).mul(2).add(1).mul(source).div(2 * target, rounding_mode="floor")


class LinearAxis:
    """Linear resize of one axis to `target` pixels, of which `length` from `start` on are computed.

    Positions are those of the whole axis, in float64, so that a window sees what the full resize sees.
    """

    def __init__(self, start: int, length: int, source: int, target: int, device: torch.device):
        centre = torch.arange(start, start + length, dtype=torch.float64) + 0.5
        position = (centre * source / target - 0.5).clamp(min=0)
        low = position.floor().long()
        high = (low + 1).clamp(max=source - 1)
        first = int(low[0])
        self.identity = source == target
        self.span = slice(first, first + length if self.identity else int(high[-1]) + 1)
        self.low, self.high = (low - first).to(device), (high - first).to(device)
        self.weight = (position - low).float().to(device)

    def resize(self, plane: Tensor, axis: int) -> Tensor:
        """Resizes `axis` of a plane that holds `span` of the source on this axis."""
        if self.identity:
            return plane
        weight = self.weight.unsqueeze(1 - axis)
        below, above = plane.index_select(axis, self.low), plane.index_select(axis, self.high)
        # Not torch.lerp: its difference of two huge logits overflows.
        return below.mul_(1 - weight).add_(above.mul_(weight))

    def resize_last(self, planes: Tensor) -> Tensor:
        """Resizes the last axis of (..., span); a product with a thin matrix, which beats picking single values."""
        return planes if self.identity else planes @ self._matrix(slice(0, len(self.low)))[1].T

    def resize_rows(self, planes: Tensor, strip: slice) -> Tensor:
        """Resizes the rows of (C, span, w), those of a strip of the result only."""
        if self.identity:
            return planes[:, strip]
        first, matrix = self._matrix(strip)
        return matrix @ planes[:, first : first + matrix.shape[1]]

    def _matrix(self, strip: slice) -> tuple[int, Tensor]:
        """The first source pixel of a strip of the target, and (target, source) weights of those from there on."""
        low, high, weight = self.low[strip], self.high[strip], self.weight[strip, None]
        first = int(low[0])
        matrix = weight.new_zeros(len(low), int(high[-1]) + 1 - first)
        matrix.scatter_(1, (low - first)[:, None], 1 - weight)
        return first, matrix.scatter_add_(1, (high - first)[:, None], weight)

    def neighbours(self, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The source pixels of some target pixels (n,), one or two each, as places in `span`, and their weights."""
        if self.identity:
            yield self.low[pixels], torch.ones_like(self.weight[pixels])
            return
        yield self.low[pixels], 1 - self.weight[pixels]
        yield self.high[pixels], self.weight[pixels]


def coarse_size(size: tuple[int, int], native: Sequence[int], factor: int) -> tuple[tuple[int, int], int]:
    """(H, W) of an image made smaller by a whole factor, and every how many-th value of a prediction will do for it.

    Args:
        size: (H, W) of the image.
        native: (h, w) of the prediction.
        factor: at least 1.
    """
    coarse = -(-size[0] // factor), -(-size[1] // factor)
    return coarse, max(1, min(native[0] // coarse[0], native[1] // coarse[1]))
