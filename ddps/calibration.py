"""Whether confidence means something: reliability, and how well uncertainty finds errors, over a whole set.

All counts are sums over pixels, in memory that does not grow with the set; two of a kind can be added up.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

BINS = 15
# A float32 in [0, 1] is told by its bits as an integer, in the same order; without the last 13 of them two numbers fall
# together where they differ by less than a thousandth of themselves. Near 0, where most pixels are, nothing is lost.
DROPPED_BITS = 13
LEVELS = (int(np.float32(1).view(np.uint32)) >> DROPPED_BITS) + 1
CURVE_POINTS = 101
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Reliability:
    """Mean confidence beside the share of right answers, in bins of equal width (Guo et al., "On calibration of modern
    neural networks", ICML 2017, arXiv 1706.04599).

    Args:
        bins: number of bins over [0, 1], at least 1.

    Attributes:
        counts: (bins,) pixels.
        confidence: (bins,) sum of the confidences.
        right: (bins,) pixels with the right class.
    """

    def __init__(self, bins: int = BINS):
        if bins < 1:
            raise InputError("bins of at least 1", str(bins), str(BINS))
        self.counts, self.right = np.zeros(bins, dtype=np.int64), np.zeros(bins, dtype=np.int64)
        self.confidence = np.zeros(bins)

    def update(self, confidence: ArrayLike, right: ArrayLike) -> None:
        """Adds pixels.

        Args:
            confidence: (N,) probability of the answer given, in [0, 1].
            right: (N,) bool.

        Raises:
            InputError: values outside of [0, 1].
        """
        values, correct = _check(confidence, right, "confidence")
        bins = len(self.counts)
        which = np.minimum((values.astype(np.float64) * bins).astype(np.int64), bins - 1)
        self.counts += np.bincount(which, minlength=bins)
        self.confidence += np.bincount(which, values, minlength=bins)
        self.right += np.bincount(which[correct], minlength=bins)

    def add(self, other: "Reliability") -> None:
        """Adds what another one has counted, in as many bins."""
        self.counts += other.counts
        self.confidence += other.confidence
        self.right += other.right

    @property
    def ece(self) -> float:
        """Expected calibration error in percent: mean over the pixels of |accuracy - confidence| of their bin."""
        total = int(self.counts.sum())
        return 100 * float(np.abs(self.confidence - self.right).sum()) / total if total else math.nan

    @property
    def mean_confidence(self) -> float:
        """In percent; nan without pixels."""
        total = int(self.counts.sum())
        return 100 * float(self.confidence.sum()) / total if total else math.nan

    def points(self) -> list[tuple[float, float, float]]:
        """(mean confidence, share of right answers, share of the pixels) of every bin that is not empty."""
        full = np.flatnonzero(self.counts)
        total = max(1, int(self.counts.sum()))
        return [
            (self.confidence[i] / self.counts[i], self.right[i] / self.counts[i], self.counts[i] / total)
            for i in full.tolist()
        ]


class ErrorDetection:
    """How well a number tells wrong pixels from right ones.

    Attributes:
        right, wrong: (LEVELS,) pixels by uncertainty, the least uncertain first.
    """

    def __init__(self) -> None:
        self.right, self.wrong = np.zeros(LEVELS, dtype=np.int64), np.zeros(LEVELS, dtype=np.int64)

    def update(self, uncertainty: ArrayLike, right: ArrayLike) -> None:
        """Adds pixels.

        Args:
            uncertainty: (N,) in [0, 1].
            right: (N,) bool.

        Raises:
            InputError: values outside of [0, 1].
        """
        values, correct = _check(uncertainty, right, "uncertainty")
        # + 0 makes -0.0 a 0.0, whose bits are in order
        level = ((values + np.float32(0)).view(np.uint32) >> DROPPED_BITS).astype(np.int64)
        self.right += np.bincount(level[correct], minlength=LEVELS)
        self.wrong += np.bincount(level[~correct], minlength=LEVELS)

    def add(self, other: "ErrorDetection") -> None:
        """Adds what another one has counted."""
        self.right += other.right
        self.wrong += other.wrong

    @property
    def error(self) -> float:
        """Share of wrong pixels in percent; nan without any pixels."""
        total = int(self.right.sum() + self.wrong.sum())
        return 100 * int(self.wrong.sum()) / total if total else math.nan

    @property
    def auroc(self) -> float:
        """Chance in percent that a wrong pixel is more uncertain than a right one, equal ones counted half.

        nan where all pixels are right, or all are wrong.
        """
        right, wrong = self.right.astype(np.float64), self.wrong.astype(np.float64)
        pairs = right.sum() * wrong.sum()
        below = np.cumsum(right) - right
        return 100 * float((wrong * (below + right / 2)).sum() / pairs) if pairs else math.nan

    def error_at(self, coverage: float) -> float:
        """Share of wrong pixels in percent among the least uncertain ones.

        Args:
            coverage: which share of the pixels these are, in (0, 1]; of equally uncertain ones a part is taken.
        """
        total = int(self.right.sum() + self.wrong.sum())
        return (
            100 * float(self._wrong_among(np.array([coverage * total]))[0]) / (coverage * total) if total else math.nan
        )

    def curve(self) -> "Curve":
        """Error against coverage at `CURVE_POINTS` - 1 steps."""
        coverage = np.linspace(0, 1, CURVE_POINTS)[1:]
        total = int(self.right.sum() + self.wrong.sum())
        if not total:
            return Curve(coverage, np.full(len(coverage), np.nan))
        return Curve(coverage, 100 * self._wrong_among(coverage * total) / (coverage * total))

    def caught(self, reviewed: float) -> float:
        """Share of all wrong pixels in percent that are among the most uncertain ones.

        Args:
            reviewed: which share of the pixels these are, in [0, 1].
        """
        wrong = int(self.wrong.sum())
        total = wrong + int(self.right.sum())
        return (
            100 * (1 - float(self._wrong_among(np.array([(1 - reviewed) * total]))[0]) / wrong) if wrong else math.nan
        )

    def _wrong_among(self, pixels: FloatArray) -> FloatArray:
        """How many of the `pixels` least uncertain ones are wrong."""
        counts = np.concatenate([[0], np.cumsum(self.right + self.wrong)]).astype(np.float64)
        wrong = np.concatenate([[0], np.cumsum(self.wrong)]).astype(np.float64)
        keep = np.concatenate([[True], np.diff(counts) > 0])
        return np.interp(pixels, counts[keep], wrong[keep])


@dataclass(frozen=True, eq=False)
class Curve:
    """Error against coverage (Geifman and El-Yaniv, "Selective classification for deep neural networks", 2017).

    Attributes:
        coverage: (N,) share of the pixels that are kept, the least uncertain ones, increasing up to 1.
        error: (N,) share of wrong ones among them, in percent.
    """

    coverage: FloatArray
    error: FloatArray

    @property
    def area(self) -> float:
        """Area under the curve in percent: the mean error over all coverages."""
        return float(self.error.mean())


class Calibration:
    """`Reliability` and `ErrorDetection` of the same pixels.

    Args:
        ignore_index: label of void pixels, which are left out.
    """

    def __init__(self, ignore_index: int = 255):
        self.ignore_index = ignore_index
        self.reliability, self.detection = Reliability(), ErrorDetection()

    def update(self, labels: ArrayLike, confidence: ArrayLike, uncertainty: ArrayLike, target: ArrayLike) -> None:
        """Adds one image; void pixels of the target or of the labels count for nothing.

        Args:
            labels: (H, W) class ids of the answer.
            confidence: (H, W) probability of them, in [0, 1].
            uncertainty: (H, W) in [0, 1].
            target: (H, W) true class ids.

        Raises:
            InputError: sizes that differ, or numbers outside of [0, 1].
        """
        answer, truth = np.asarray(labels), np.asarray(target)
        planes = np.asarray(confidence), np.asarray(uncertainty)
        sizes = {array.shape for array in (answer, truth, *planes)}
        if len(sizes) > 1:
            raise InputError("labels, confidence, uncertainty and target of one size", str(sorted(sizes)), "resizing")
        known = (truth != self.ignore_index) & (answer != self.ignore_index)
        right = (answer == truth)[known]
        self.reliability.update(planes[0][known], right)
        self.detection.update(planes[1][known], right)

    def add(self, other: "Calibration") -> None:
        """Adds what another one has counted."""
        self.reliability.add(other.reliability)
        self.detection.add(other.detection)

    def as_dict(self) -> dict[str, float]:
        """All in percent, nan where nothing counted: `error`, `confidence` (mean), `ece`, `auroc`, `aurc` (mean error
        over all coverages), `error_at_90` (of the 90 % least uncertain pixels) and `caught_by_10` (share of the wrong
        pixels among the 10 % most uncertain)."""
        return {
            "error": self.detection.error,
            "confidence": self.reliability.mean_confidence,
            "ece": self.reliability.ece,
            "auroc": self.detection.auroc,
            "aurc": self.detection.curve().area,
            "error_at_90": self.detection.error_at(0.9),
            "caught_by_10": self.detection.caught(0.1),
        }


def _check(values: ArrayLike, right: ArrayLike, name: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    numbers, correct = np.asarray(values, dtype=np.float32).ravel(), np.asarray(right, dtype=np.bool_).ravel()
    if numbers.shape != correct.shape:
        raise InputError(f"one {name} for each of {len(correct)} pixels", str(len(numbers)), "arrays of one size")
    # "not within" also holds for nan; what rounding leaves above 1 is 1
    bad = ~((numbers >= -1e-5) & (numbers <= 1 + 1e-5))
    if bad.any():
        raise InputError(f"{name} from 0 to 1", repr(float(numbers[bad][0])), "probabilities, not logits")
    return numbers.clip(0, 1), correct
