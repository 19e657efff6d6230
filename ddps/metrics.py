"""Mean IoU and mean boundary IoU of a data set, accumulated image by image.

Both cost a few passes over the pixels, whatever the number of classes.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

IntArray = NDArray[np.int64]


class ConfusionMatrix:
    """Counts of (true class, predicted class) over a data set.

    Args:
        num_classes: K, at least 1.
        ignore_index: label of void pixels. A void target pixel counts for nothing; a void predicted pixel counts as
            a wrong answer of no class.

    Attributes:
        counts: (K, K + 1) int64, rows are true classes, columns predicted ones; the last column is "predicted void".
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes = _check_classes(num_classes)
        self.ignore_index = ignore_index
        self.counts: IntArray = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Adds one image.

        Args:
            prediction, target: (H, W) class ids in 0 .. K - 1, or `ignore_index`; numpy, or torch on the CPU.

        Raises:
            InputError: shapes differ, or an id is neither a class nor void.
        """
        self._add(*_check_pair(prediction, target, self.num_classes, self.ignore_index))

    def _add(self, prediction: IntArray, target: IntArray) -> None:
        k = self.num_classes
        cells = (target * (k + 1) + prediction)[target < k]
        self.counts += np.bincount(cells, minlength=k * (k + 1)).reshape(k, k + 1)

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union in percent; nan where neither target nor prediction has the class."""
        intersection = self.counts.diagonal()
        union = self.counts.sum(1) + self.counts[:, : self.num_classes].sum(0) - intersection
        return _percent(intersection, union)

    @property
    def miou(self) -> float:
        """Mean of `per_class_iou` over the classes with a union, in percent; nan without any."""
        return _mean(self.per_class_iou)

    @property
    def accuracy(self) -> float:
        """Share of the non-void pixels that are right, in percent; nan without any."""
        total = int(self.counts.sum())
        return 100.0 * int(self.counts.trace()) / total if total else math.nan


class BoundaryIoU:
    """Boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021, equation 1), summed over a data set.

    The boundary region of a class is its mask without the mask's erosion by d pixels (d times a 3x3 square), and what
    lies outside the image counts as outside the mask. Intersections and unions of the two boundary regions are summed
    over all images per class; void target pixels are left out of both regions.

    Args:
        num_classes: K, at least 1.
        ignore_index: label of void pixels.
        ratio: band width d as a share of the image diagonal; d is rounded, and at least 1.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, ratio: float = 0.02):
        self.num_classes = _check_classes(num_classes)
        self.ignore_index = ignore_index
        self.ratio = ratio
        self.intersection: IntArray = np.zeros(num_classes, dtype=np.int64)
        self.union: IntArray = np.zeros(num_classes, dtype=np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Adds one image; arguments and errors as in `ConfusionMatrix.update`."""
        self._add(*_check_pair(prediction, target, self.num_classes, self.ignore_index))

    def _add(self, prediction: IntArray, target: IntArray) -> None:
        distance = band_width(target.shape[0], target.shape[1], self.ratio)
        valid = target < self.num_classes
        of_prediction = boundary_band(prediction, distance) & valid
        of_target = boundary_band(target, distance) & valid
        both = of_prediction & of_target & (prediction == target)
        intersection = self._count(target[both])
        self.intersection += intersection
        self.union += self._count(prediction[of_prediction]) + self._count(target[of_target]) - intersection

    def _count(self, labels: IntArray) -> IntArray:
        return np.bincount(labels, minlength=self.num_classes + 1)[: self.num_classes]

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """(K,) boundary IoU in percent; nan where neither has a boundary pixel of the class."""
        return _percent(self.intersection, self.union)

    @property
    def miou(self) -> float:
        """Mean of `per_class_iou` over the classes with a union, in percent; nan without any."""
        return _mean(self.per_class_iou)


class SegmentationMetrics:
    """`ConfusionMatrix` and `BoundaryIoU` of the same pairs."""

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.confusion = ConfusionMatrix(num_classes, ignore_index)
        self.boundary = BoundaryIoU(num_classes, ignore_index)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Adds one image; arguments and errors as in `ConfusionMatrix.update`."""
        pair = _check_pair(prediction, target, self.confusion.num_classes, self.confusion.ignore_index)
        self.confusion._add(*pair)
        self.boundary._add(*pair)

    def add(self, other: "SegmentationMetrics") -> None:
        """Adds what another one has counted, over the same classes."""
        self.confusion.counts += other.confusion.counts
        self.boundary.intersection += other.boundary.intersection
        self.boundary.union += other.boundary.union

    def as_dict(self) -> dict[str, float]:
        """`miou`, `mbiou` and `accuracy` in percent; nan when no pixel counted."""
        return {
            "miou": self.confusion.miou,
            "mbiou": self.boundary.miou,
            "accuracy": self.confusion.accuracy,
        }


def band_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Width d of the boundary band in pixels: `ratio` of the diagonal, rounded, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_band(labels: NDArray[np.integer], distance: int) -> NDArray[np.bool_]:
    """Pixels within `distance` of a pixel of another class, or of the outside of the image.

    A pixel survives the erosion of its own class's mask if and only if the square of side 2d + 1 around it lies in the
    image and holds one label only, so one pass serves all classes.

    Args:
        labels: (H, W) class ids.
        distance: d in pixels, at least 1 (erosion by d times a 3x3 square).

    Returns:
        (H, W) bool: for every class at once, the union of the masks' boundary regions.
    """
    height, width = labels.shape
    band = np.ones((height, width), dtype=np.bool_)
    side = 2 * distance + 1
    if height < side or width < side:
        return band
    # A square holds one label when each of its rows does and its middle column does.
    rows = _no_change(labels, side)
    column = _no_change(labels[:, distance : width - distance].T, side).T
    broken = np.cumsum(~rows, axis=0, dtype=np.int32)
    broken = np.concatenate([np.zeros_like(broken[:1]), broken])
    whole = (broken[side:] == broken[:-side]) & column
    band[distance : height - distance, distance : width - distance] = ~whole
    return band


def _no_change(labels: NDArray[np.integer], side: int) -> NDArray[np.bool_]:
    """(H, W) labels → (H, W - side + 1): whether the `side` pixels of a row from here on hold one label."""
    changes = np.zeros(labels.shape, dtype=np.int32)
    np.cumsum(labels[:, 1:] != labels[:, :-1], axis=1, out=changes[:, 1:])
    same: NDArray[np.bool_] = changes[:, side - 1 :] == changes[:, : labels.shape[1] - side + 1]
    return same


def _check_pair(
    prediction: ArrayLike, target: ArrayLike, num_classes: int, ignore_index: int
) -> tuple[IntArray, IntArray]:
    """Both label maps as int64 with void as class K."""
    pair = [_check_labels("prediction", prediction, num_classes, ignore_index)]
    pair.append(_check_labels("target", target, num_classes, ignore_index))
    if pair[0].shape != pair[1].shape:
        raise InputError(
            f"a prediction of the target's size {pair[1].shape}",
            f"size {pair[0].shape}",
            "resizing the prediction to the mask's size (label maps by nearest neighbour)",
        )
    return pair[0], pair[1]


def _check_labels(name: str, labels: ArrayLike, num_classes: int, ignore_index: int) -> IntArray:
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iub" or array.size == 0:
        raise InputError(
            f"{name} as an integer label map (H, W)", f"{array.dtype} of shape {array.shape}", "passing class ids"
        )
    void = array == ignore_index
    known = (array >= 0) & (array < num_classes) & ~void
    if not (known | void).all():
        bad = np.unique(array[~(known | void)])
        raise InputError(
            f"{name} with class ids 0 to {num_classes - 1} or void {ignore_index}",
            f"ids {', '.join(map(str, bad[:10]))}{' ...' if len(bad) > 10 else ''}",
            "mapping the labels to these classes, or giving the right number of classes",
        )
    return np.where(void, num_classes, array).astype(np.int64)


def _check_classes(num_classes: int) -> int:
    if num_classes < 1:
        raise InputError("num_classes of at least 1", str(num_classes), "the number of classes of the data set")
    return num_classes


def _percent(part: IntArray, whole: IntArray) -> NDArray[np.float64]:
    share = np.full(part.shape, np.nan)
    np.divide(100.0 * part, whole, out=share, where=whole > 0)
    return share


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan
