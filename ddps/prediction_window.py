"""A window of a prediction: of its classes only those that matter there are brought to image size.

Nearly all of the classes that a segmentor knows are nowhere to be seen in a window. They are added up at the
prediction's own resolution, and resized as one: what a window costs hardly depends on the number of classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .resize import LinearAxis

STRIP_VALUES = 1 << 18
"""Values that are worked on at a time; they should fit in the processor's cache."""
LEAST = 1e-12
NEGLIGIBLE_PEAK = 0.02
"""Classes that are nowhere as likely as this are resized together."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What a window shows of every class, at the prediction's own resolution.

    Attributes:
        mass: (K,) mean probability.
        peak: (K,) highest probability.
        least: (K,) lowest probability.
        leads: (K,) bool, whether it is the likeliest class of any pixel.
    """

    mass: Tensor
    peak: Tensor
    least: Tensor
    leads: Tensor


def most_likely(planes: Tensor) -> tuple[Tensor, Tensor]:
    """(h, w) each: the largest of (C, h, w) values and which it is, plane by plane: faster than over the first axis."""
    best = planes[0].clone()
    place = torch.zeros(planes.shape[1:], dtype=torch.int64, device=planes.device)
    for k, plane in enumerate(planes[1:], 1):
        place.masked_fill_(plane > best, k)
        torch.maximum(best, plane, out=best)
    return best, place


class PredictionWindow(ABC):
    """A window of (height, width) pixels over K classes; see `Prediction.window`.

    Attributes:
        size: (height, width) in image pixels.
        num_classes: K.
    """

    size: tuple[int, int]
    num_classes: int

    @abstractmethod
    def shares(self) -> Shares:
        """How much there is of every class."""

    @abstractmethod
    def grouped(self, classes: Tensor, rest: bool = True) -> Tensor:
        """Probabilities of some classes, and of all the others together.

        Args:
            classes: (C,) int64, each once, C >= 1.
            rest: whether the others get a plane; without, the classes' probabilities are made to sum to 1. There is
                none where there are no others.

        Returns:
            (C + 1, height, width) float32, or (C, height, width); they sum to 1. Of logits, what is negligible
            everywhere is resized as one logit, the logarithm of its sum.
        """

    @abstractmethod
    def best_of_rest(self, classes: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest of the other classes at some pixels.

        Args:
            classes: (C,) int64, which are left out; fewer than K.
            where: (height, width) bool, n pixels.

        Returns:
            (n,) int64 classes, and (n,) float32, their shares of the sum of the others.
        """

    def bounded(self, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `grouped` gives, and (height, width) how likely any one of the others can be; None where that is not
        known any better than by all of them together."""
        return self.grouped(classes), None

    def own(self, classes: Tensor, grouped: Tensor, bound: Tensor | None = None) -> Tensor:
        """(height, width) int64: the likeliest class of all.

        Args:
            classes, grouped: (C,), and what `grouped` made of them.
            bound: from `bounded`, where it is known.
        """
        best, place = most_likely(grouped[: len(classes)])
        labels = classes[place]
        if len(grouped) > len(classes):
            # all the others together, or what bounds each of them, are less likely nearly everywhere
            doubtful = (grouped[-1] if bound is None else bound) > best
            if bool(doubtful.any()):
                labels[doubtful] = self.best_of_rest(classes[:0], doubtful)[0]
        return labels


@dataclass(frozen=True, eq=False)
class ValueWindow(PredictionWindow):
    """Of logits or probabilities.

    Attributes:
        native: (K, h, w) float32, the part of the prediction that the window is made of, at its own resolution.
        rows, columns: how it is resized.
        logits: whether these are logits.
    """

    native: Tensor
    rows: LinearAxis
    columns: LinearAxis
    logits: bool

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        return len(self.rows.low), len(self.columns.low)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        return len(self.native)

    def shares(self) -> Shares:
        return self._shares

    @cached_property
    def _shares(self) -> Shares:
        count = self.num_classes
        mass, peak = self.native.new_zeros(count), self.native.new_zeros(count)
        least, leads = self.native.new_ones(count), torch.zeros(count, dtype=torch.bool, device=self.native.device)
        for strip in self._strips(count, self.native.shape[1], self.native.shape[2]):
            values = self.native[:, strip]
            probs = (values.softmax(0) if self.logits else values).flatten(1)
            mass += probs.sum(1)
            peak, least = torch.maximum(peak, probs.amax(1)), torch.minimum(least, probs.amin(1))
            # several times faster than argmax over the first axis
            leads |= (probs - probs.amax(0)).amax(1) == 0
        return Shares(mass / (self.native.shape[1] * self.native.shape[2]), peak, least, leads)

    def grouped(self, classes: Tensor, rest: bool = True) -> Tensor:
        return self._group(classes, rest, False)[0]

    def bounded(self, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._group(classes, True, True)

    def _group(self, classes: Tensor, rest: bool, bounded: bool) -> tuple[Tensor, Tensor | None]:
        count = len(classes)
        others = self._others(classes) if rest else classes[:0]
        bounded &= len(others) > 0
        minor, extra = others, []
        if self.logits and len(others):
            # resized as one logit, the sum of classes that are likely somewhere would be too likely between the pixels
            negligible = self.shares().peak[others] < NEGLIGIBLE_PEAK
            minor, classes = others[negligible], torch.cat([classes, others[~negligible]])
        if len(minor):
            extra.append(self._over(minor, Tensor.logsumexp if self.logits else Tensor.sum))
        if bounded:
            # the largest of several resized values is nowhere above the resized largest one
            extra.append(self._over(others, Tensor.amax))
        planes = torch.cat([self.native[classes], *(plane[None] for plane in extra)])
        wide = self.columns.resize_last(planes)
        height, width = self.size
        answer = wide.new_empty(count + (len(others) > 0), height, width)
        bound = wide.new_empty(height, width) if bounded else None
        for strip in self._strips(len(planes), height, width):
            values = self.rows.resize_rows(wide, strip)
            probs = values[: len(values) - bounded]
            if self.logits and bound is None:
                probs = probs.softmax(0)
            elif self.logits and bound is not None:
                total = probs.logsumexp(0)
                probs, bound[strip] = (probs - total).exp_(), (values[-1] - total).exp_()
            elif bound is not None:
                bound[strip] = values[-1]
            answer[:count, strip] = probs[:count]
            if len(others):
                answer[count, strip] = probs[count:].sum(0)
        if not self.logits and count < self.num_classes and not len(others):
            answer /= answer.sum(0).clamp(min=LEAST)
        return answer, bound

    def best_of_rest(self, classes: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        others = self._others(classes)
        pixels = where.nonzero()
        labels = torch.empty(len(pixels), dtype=torch.int64, device=where.device)
        shares = torch.empty(len(pixels), device=where.device)
        for strip in self._strips(len(others), len(pixels), 1):
            row, column = pixels[strip].unbind(1)
            values = self.native.new_zeros(())
            for r, from_row in self.rows.neighbours(row):
                for c, from_column in self.columns.neighbours(column):
                    values = values + self.native[others[:, None], r, c] * (from_row * from_column)
            probs = values.softmax(0) if self.logits else values / values.sum(0).clamp(min=LEAST)
            shares[strip], place = probs.max(0)
            labels[strip] = others[place]
        return labels, shares

    def _others(self, classes: Tensor) -> Tensor:
        other = torch.ones(self.num_classes, dtype=torch.bool, device=self.native.device)
        other[classes] = False
        return other.nonzero()[:, 0]

    def _over(self, some: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        """(h, w) of some classes at the prediction's own resolution, reduced to one plane."""
        height, width = self.native.shape[1:]
        total = self.native.new_empty(height, width)
        for strip in self._strips(len(some), height, width):
            total[strip] = reduce(self.native[some, strip], 0)
        return total

    @staticmethod
    def _strips(count: int, height: int, width: int) -> Iterator[slice]:
        rows = max(1, STRIP_VALUES // max(1, count * width))
        for top in range(0, height, rows):
            yield slice(top, min(top + rows, height))


@dataclass(frozen=True, eq=False)
class LabelWindow(PredictionWindow):
    """Of a label map.

    Attributes:
        labels: (height, width) int64, void where it is no class.
        present: (K,) bool, the classes that are possible at all.
        certain, possible: what a pixel gives its own class, and each other class that is possible.
        void: `ignore_index`; such a pixel gives every possible class the same.
    """

    labels: Tensor
    present: Tensor
    certain: float
    possible: float
    void: int

    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        return len(self.present)

    def own_classes(self) -> "LabelWindow":
        """The same, but only the classes that the window shows are possible.

        A label map spreads its doubt over all classes of the image. Those that the window does not show would take up
        slots, and could only be invented. In a window of void alone none is.
        """
        counts = self._counts()
        shown = int((counts > 0).sum())
        total = self.certain + (shown - 1) * self.possible
        return replace(self, present=counts > 0, certain=self.certain / total, possible=self.possible / total)

    def shares(self) -> Shares:
        counts = self._counts()
        pixels, labelled = self.labels.numel(), int(counts.sum())
        possible, present = int(self.present.sum()), self.present.float()
        void = (pixels - labelled) / max(1, possible)
        mass = (counts * self.certain + (labelled - counts) * self.possible + void) / pixels * present
        lowest = [1 / max(1, possible)] if labelled < pixels else []
        peak = torch.where(counts > 0, self.certain, max([self.possible if labelled else 0.0, *lowest])) * present
        least = torch.where(counts < labelled, min([self.possible, *lowest]), min([self.certain, *lowest])) * present
        return Shares(mass, peak, least, counts > 0)

    def grouped(self, classes: Tensor, rest: bool = True) -> Tensor:
        possible = int(self.present.sum())
        others = possible - int(self.present[classes].sum())
        planes = len(classes) + (rest and len(classes) < self.num_classes)
        answer = torch.empty(planes, *self.size)
        void = self.labels == self.void
        none = bool(void.any())
        among = torch.zeros(self.size, dtype=torch.bool)
        for plane, which in zip(answer, classes.tolist(), strict=False):
            if not self.present[which]:
                plane.zero_()
                continue
            here = self.labels == which
            among |= here
            plane.fill_(self.possible).masked_fill_(here, self.certain)
            if none:
                plane.masked_fill_(void, 1 / possible)
        if planes > len(classes):
            answer[-1].fill_(self.certain + (others - 1) * self.possible if others else 0.0)
            answer[-1].masked_fill_(among, others * self.possible)
            if none:
                answer[-1].masked_fill_(void, others / possible)
        elif others:
            answer /= answer.sum(0).clamp(min=LEAST)
        return answer

    def in_slots(self, slot_of: Tensor, slots: int) -> Tensor:
        """(S, height, width) float32, the sums of what the classes of every slot have.

        Args:
            slot_of: (K,) int64, the slot of every class that is possible.
            slots: S.
        """
        held = slot_of[self.present].bincount(minlength=slots).tolist()
        void = self.labels == self.void
        slot = torch.where(void, -1, slot_of[torch.where(void, 0, self.labels)])
        answer = torch.empty(slots, *self.size)
        for plane, which, count in zip(answer, range(slots), held, strict=True):
            plane.fill_(count * self.possible)
            plane.masked_fill_(slot == which, self.certain + (count - 1) * self.possible)
            plane.masked_fill_(void, count / sum(held))
        return answer

    def best_of_rest(self, classes: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        other = self.present.clone()
        other[classes] = False
        others = other.nonzero()[:, 0]
        if not len(others):
            others = (~self.present).nonzero()[:1, 0]
        labels = self.labels[where]
        known = (labels != self.void) & other[labels.clamp(0, self.num_classes - 1)]
        total = self.certain + (len(others) - 1) * self.possible
        shares = torch.where(known, self.certain / total, 1 / max(1, len(others)))
        return torch.where(known, labels, others[0]), shares

    def own(self, classes: Tensor, grouped: Tensor, bound: Tensor | None = None) -> Tensor:
        return self.labels

    def _counts(self) -> Tensor:
        return torch.bincount(self.labels[self.labels != self.void], minlength=self.num_classes)
