"""What a label map says of a pixel that is none of certain classes: that it may be the nearest one of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .prediction_window import LabelWindow
from .predictions import Prediction
from .slots import SlotPlan
from .tiling import Tile

REACH = 16
"""Pixels within which a label has a say."""


def nearest_labels(labels: Tensor, wanted: Tensor) -> Tensor:
    """The label of the nearest pixel of some classes, by Euclidean distance.

    Args:
        labels: (h, w) int64; what is no class, such as void, is never wanted.
        wanted: (K,) bool, the classes.

    Returns:
        (h, w) int64; -1 where there is none within `REACH` rows and columns. Of pixels that are equally near the one
        that is fewer rows away counts, then the upper one, then the left one, whatever their ids.
    """
    height, width = labels.shape
    known = (labels >= 0) & (labels < len(wanted)) & wanted[labels.clamp(0, len(wanted) - 1)]
    far = width + REACH
    column = torch.arange(width, device=labels.device).expand(height, width)
    before = torch.where(known, column, -far).cummax(1).values
    after = -torch.where(known, -column, -2 * far).flip(1).cummax(1).values.flip(1)
    in_row = torch.where(column - before <= after - column, before, after)
    away = (in_row - column).abs()
    # a squared distance and, below it, which row it is measured from: the smallest of them tells both
    rows = [0] + [sign * row for row in range(1, min(REACH, height - 1) + 1) for sign in (-1, 1)]
    most = 2 * REACH * REACH + 1
    in_reach = torch.where(away <= REACH, away * away, most).to(torch.int32) * len(rows)
    best = in_reach.clone()
    for rank, row in enumerate(rows[1:], 1):
        here, there = slice(max(0, -row), height - max(0, row)), slice(max(0, row), height - max(0, -row))
        torch.minimum(best[here], in_reach[there] + (row * row * len(rows) + rank), out=best[here])
    row = torch.arange(height, device=labels.device)[:, None] + best.new_tensor(rows)[best % len(rows)]
    nearest = labels[row, in_row.gather(0, row).clamp(0, width - 1)]
    return torch.where(best < most * len(rows), nearest, -1)


@dataclass(frozen=True, eq=False)
class LabelsAround:
    """A label map in a window and in reach of it.

    Attributes:
        area: the window and what is in reach of it.
        window: the labels there.
    """

    area: Tile
    window: LabelWindow

    def shown(self) -> Tensor:
        """(K,) bool, the classes that occur."""
        return self.window.shares().leads

    def nearest_first(self, original: Tensor, where: Tile, plan: SlotPlan, places: Tensor) -> Tensor:
        """Makes the nearest class without a slot as likely as a label makes its own.

        A label map tells nothing apart at a pixel but its own class. What "other" has won from another class belongs to
        one that is near, and not to all of them alike: each would have too little of it to be the likeliest.

        Args:
            original: (C, h, w) probabilities of `where`, a part of the window.
            plan: of the slots.
            places: (K,) int64, where in `original` a class is.
        """
        wanted = self.shown()
        wanted[plan.classes] = False
        if not bool(wanted.any()):
            return original
        nearest = nearest_labels(self.window.labels, wanted)[where.slices_in(self.area)]
        found = nearest >= 0
        rows, columns = found.nonzero().unbind(1)
        original = original.clone()
        original[places[nearest[found]], rows, columns] = self.window.certain
        return original


def labels_around(prediction: Prediction, window: Tile) -> LabelsAround | None:
    """What is in reach of a window; None for other predictions than label maps."""
    if prediction.kind != "labels":
        return None
    height, width = prediction.size
    top, left = max(0, window.top - REACH), max(0, window.left - REACH)
    bottom, right = min(height, window.top + window.height + REACH), min(width, window.left + window.width + REACH)
    area = Tile(top, left, bottom - top, right - left)
    seen = prediction.window(top, left, area.height, area.width)
    assert isinstance(seen, LabelWindow)
    return LabelsAround(area, seen)
