"""Several methods measured on the same images: what each does to a segmentor's mask, on average and at worst."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .metrics import SegmentationMetrics
from .outputs import Refinement
from .predictions import Prediction
from .refiner import DDPSRefiner

Method: TypeAlias = Callable[[Tensor, Prediction], Tensor]
"""(image (3, H, W) float32 in [0, 1], prediction) → (H, W) int64 labels, the prediction's ignore_index where void."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image with its prediction and the true mask.

    Attributes:
        stem: its name.
        image: (3, H, W) float32 in [0, 1].
        prediction: at the image's size.
        truth: (H, W) int64 class ids or void.
    """

    stem: str
    image: Tensor
    prediction: Prediction
    truth: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Figures:
    """What a method reached; all but the seconds in percent or in points, nan where nothing could be measured.

    Attributes:
        miou, mbiou, accuracy: over the whole set, see `SegmentationMetrics`.
        worst_change: the lowest change of any image's own mIoU against the segmentor alone.
        worst_stem: that image.
        worse: share of the images whose own mIoU fell.
        unchanged: share of the pixels with the segmentor's own class; void ones left out.
        seconds: mean per image, with the resizing of the prediction and without reading files.
        per_class_iou: (K,) over the whole set.
    """

    miou: float
    mbiou: float
    accuracy: float
    worst_change: float
    worst_stem: str
    worse: float
    unchanged: float
    seconds: float
    per_class_iou: NDArray[np.float64]


class Comparison:
    """Runs methods on one case after another, and sums up.

    Args:
        methods: name → method; the first is the one that the others are compared with.
        num_classes: K.
        ignore_index: label of void pixels.
    """

    def __init__(self, methods: Mapping[str, Method], num_classes: int, ignore_index: int = 255):
        self.methods = dict(methods)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._tallies = {name: _Tally(SegmentationMetrics(num_classes, ignore_index)) for name in methods}
        self._stems: list[str] = []

    def add(self, case: Case) -> None:
        """Runs all methods on one case.

        Raises:
            InputError: a mask of another size than the image, or with ids that are neither classes nor void.
        """
        own = case.prediction.argmax().numpy()
        labelled = own != self.ignore_index
        for name, method in self.methods.items():
            if not self._stems:
                # First calls set things up, which no later image pays for.
                method(case.image, case.prediction)
            start = time.perf_counter()
            answer = method(case.image, case.prediction)
            seconds = time.perf_counter() - start
            labels = answer.numpy()
            single = SegmentationMetrics(self.num_classes, self.ignore_index)
            single.update(labels, case.truth)
            same = int((labels == own)[labelled].sum())
            self._tallies[name].add(single, same, int(labelled.sum()), seconds)
        self._stems.append(case.stem)

    def figures(self) -> dict[str, Figures]:
        """Name of every method → its figures."""
        first = np.array(next(iter(self._tallies.values())).mious)
        return {name: self._sum_up(tally, first) for name, tally in self._tallies.items()}

    def _sum_up(self, tally: "_Tally", first: NDArray[np.float64]) -> Figures:
        changes = np.array(tally.mious) - first
        measured = np.flatnonzero(~np.isnan(changes))
        worst = int(measured[changes[measured].argmin()]) if len(measured) else None
        return Figures(
            **tally.metrics.as_dict(),
            worst_change=math.nan if worst is None else float(changes[worst]),
            worst_stem="" if worst is None else self._stems[worst],
            worse=100.0 * float((changes[measured] < 0).mean()) if len(measured) else math.nan,
            unchanged=100.0 * tally.same / tally.labelled if tally.labelled else math.nan,
            seconds=float(np.mean(tally.seconds)) if tally.seconds else math.nan,
            per_class_iou=tally.metrics.confusion.per_class_iou,
        )


def segmentor_alone(image: Tensor, prediction: Prediction) -> Tensor:
    """The prediction itself at image size: logits and probabilities bilinearly, label maps by nearest neighbour."""
    return prediction.argmax()


def refined(refiner: DDPSRefiner, sampler: str | None = None) -> Method:
    """Our refiner with its defaults, or with another sampler ("single": one pass of the network)."""

    def run(image: Tensor, prediction: Prediction) -> Tensor:
        answer = refiner.refine(
            image,
            prediction.native,
            kind=prediction.kind,
            sampler=sampler,
            ignore_index=prediction.ignore_index,
            num_classes=prediction.num_classes,
            return_probs=False,
        )
        assert isinstance(answer, Refinement) and isinstance(answer.labels, Tensor)  # one image, torch in, torch out
        return answer.labels

    return run


class _Tally:
    def __init__(self, metrics: SegmentationMetrics):
        self.metrics = metrics
        self.mious: list[float] = []
        self.seconds: list[float] = []
        self.same = self.labelled = 0

    def add(self, single: SegmentationMetrics, same: int, labelled: int, seconds: float) -> None:
        self.metrics.confusion.counts += single.confusion.counts
        self.metrics.boundary.intersection += single.boundary.intersection
        self.metrics.boundary.union += single.boundary.union
        self.mious.append(single.confusion.miou)
        self.seconds.append(seconds)
        self.same += same
        self.labelled += labelled
