"""Windows of a resized picture, equal to those of the whole resize and computed without it."""

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
