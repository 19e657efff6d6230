"""What a label map says of a pixel that is none of certain classes: that it may be the nearest one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .prediction_window import LabelWindow
from .predictions import Prediction
from .slot_sharing import Sharing
from .tiling import Tile

REACH = 16
"""Pixels within which a label has a say."""
_RANKS = 64
"""A power of two above the 2 * REACH + 1 rows in reach."""


def nearest_labels(labels: Tensor, known: Tensor) -> Tensor:
    """The label of the nearest of some pixels, by Euclidean distance.

    Args:
        labels: (h, w) int64, on the CPU.
        known: (h, w) bool, those pixels.

    Returns:
        (h, w) int64; -1 where there is none within `REACH` rows and columns. Of pixels that are equally near the one
        that is fewer rows away counts, then the upper one, then the left one, whatever their ids.
    """
    height, width = labels.shape
    far = width + REACH
    column = torch.arange(width, dtype=torch.int32)
    before = torch.where(known, column, -far).cummax(1).values
    after = torch.where(known, column, 2 * far).flip(1).cummin(1).values.flip(1)
    left, right = column - before, after - column
    away = torch.minimum(left, right)
    in_row = labels.gather(1, torch.where(left <= right, before, after).clamp_(0, width - 1).long())
    # a squared distance and, below it, which row it is measured from: the smallest of them tells both
    rows = [0] + [sign * row for row in range(1, min(REACH, height - 1) + 1) for sign in (-1, 1)]
    beyond = 2 * REACH * REACH + 1
    in_reach = torch.where(away <= REACH, away * away, beyond).mul_(_RANKS)
    best = in_reach.clone()
    for rank, row in enumerate(rows[1:], 1):
        here, there = slice(max(0, -row), height - max(0, row)), slice(max(0, row), height - max(0, -row))
        torch.minimum(best[here], in_reach[there] + (row * row * _RANKS + rank), out=best[here])
    source = torch.tensor(rows)[best & (_RANKS - 1)]
    source += torch.arange(height)[:, None]
    return in_row.gather(0, source).masked_fill_(best >= beyond * _RANKS, -1)


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

    def classes_of(self, where: Tile, sharing: Sharing) -> list[Tensor]:
        """Which class the pixels of a part of the window would be in every slot: the nearest of those that share it,
        and where none is in reach that with the most pixels.

        Returns:
            Of every slot () int64 where it holds one class, and (h, w) where several share it.
        """
        labels, answer = self.window.labels, []
        void = labels == self.window.void
        slots = sharing.slot_of[labels.masked_fill(void, 0)].masked_fill_(void, -1)
        for slot, (leader, shared) in enumerate(zip(sharing.leaders, sharing.shared, strict=True)):
            if shared:
                found = nearest_labels(labels, slots == slot)[where.slices_in(self.area)]
                leader = torch.where(found < 0, leader, found)
            answer.append(leader)
        return answer

    def in_classes(self, refined: Tensor, where: Tile, sharing: Sharing, places: Tensor, count: int) -> Tensor:
        """Refined slot probabilities as those of classes.

        Args:
            refined: (S, h, w) of a part of the window, `where`.
            sharing: of the slots.
            places: (K,) int64, where in the answer a class is.
            count: classes in the answer.

        Returns:
            (count, h, w) float32.
        """
        return regrouped(refined, [places[which] for which in self.classes_of(where, sharing)], count)


def regrouped(planes: Tensor, places: Sequence[Tensor], count: int) -> Tensor:
    """Adds up (S, h, w) planes to (count, h, w), each where its () or (h, w) place says; nowhere for negative ones."""
    answer = planes.new_zeros(count, *planes.shape[1:])
    for plane, place in zip(planes, places, strict=True):
        place = place.expand_as(plane)
        answer.scatter_add_(0, place.clamp(min=0)[None], torch.where(place < 0, 0, plane)[None])
    return answer


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
