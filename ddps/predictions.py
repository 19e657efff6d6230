"""A segmentor's first prediction as users hold it (logits, probabilities, label map, file) → `Prediction`.

Every error about a prediction is raised here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from einops import repeat
from PIL import Image
from torch import Tensor

from .array_files import read_array
from .errors import InputError, whole_number
from .inputs import check_dense, check_file, decode, describe_nonfinite, open_image
from .prediction_window import LabelWindow, PredictionWindow, ValueWindow
from .resize import LinearAxis, coarse_size, nearest_index

Kind: TypeAlias = Literal["logits", "probs", "labels"]
AnyKind: TypeAlias = Literal["auto", "logits", "probs", "labels"]
PredictionLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

LABEL_CONFIDENCE = 0.9  # that a label map gives its own label; the rest is spread over the other classes present
SUM_TOLERANCE = 1e-2  # how far from 1 a pixel's probabilities may sum and still be told from logits
MAX_IMPLIED_CLASSES = 1024  # most that a label map's ids may imply when `num_classes` is not given
MAX_CLASSES = 65536
STRIP_PIXELS = 1 << 17  # of one class, which `Prediction.argmax` resizes at a time; they should fit in the cache


@dataclass(frozen=True, eq=False)
class Prediction:
    """The segmentor's answer at its own resolution, resized to image size window by window.

    150 classes at 3840 x 2160 take 5 GiB at image size: callers ask for the windows that they need.

    Attributes:
        native: (K, h, w) float32 logits or probabilities, or the (h, w) int64 label map.
        size: (H, W) of the image, in pixels.
        kind: what `native` holds.
        num_classes: K; a sigmoid foreground has become 2 classes.
        ignore_index: label of void pixels in a label map.
    """

    native: Tensor
    size: tuple[int, int]
    kind: Kind
    num_classes: int
    ignore_index: int = 255

    def to(self, device: torch.device | str) -> "Prediction":
        """The same prediction with `native`, and so every answer, on `device`."""
        return replace(self, native=self.native.to(device))

    def crop(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Probabilities in a window of the image, equal to that window of the whole, resized prediction.

        Logits are resized bilinearly as logits, probabilities as probabilities, label maps by nearest neighbour.

        Args:
            top, left, height, width: the window, in image pixels, inside the image.

        Returns:
            (K, height, width) float32, every pixel sums to 1.
        """
        if self.kind == "labels":
            return self._label_probs(self._nearest(top, left, height, width))
        values = torch.empty(self.num_classes, height, width, device=self.native.device)
        for k, plane in enumerate(self._planes(top, left, height, width)):
            values[k] = plane
        return values.softmax(0) if self.kind == "logits" else values

    def coarse(self, factor: int) -> "Prediction":
        """The prediction for the image made smaller by a whole factor; of a finer one, every n-th value is taken."""
        size, every = coarse_size(self.size, self.native.shape[-2:], factor)
        return replace(self, native=self.native[..., every // 2 :: every, every // 2 :: every], size=size)

    def cut(self, top: int, left: int, height: int, width: int) -> "Prediction":
        """The prediction of a window of the image, as if the image were that window; arguments as for `crop`."""
        if (height, width) == self.size:
            return self
        if self.kind == "labels":
            return replace(self, native=self._nearest(top, left, height, width), size=(height, width))
        native = self.crop(top, left, height, width)
        return replace(self, native=native, size=(height, width), kind="probs")

    def window(self, top: int, left: int, height: int, width: int) -> PredictionWindow:
        """A window of the image, of which only the classes that matter there are resized; arguments as for `crop`."""
        if self.kind == "labels":
            others = int(self.present.sum()) - 1
            certain, possible = (LABEL_CONFIDENCE, (1 - LABEL_CONFIDENCE) / others) if others else (1.0, 0.0)
            labels = self._nearest(top, left, height, width)
            return LabelWindow(labels, self.present, certain, possible, self.ignore_index)
        rows, columns = self._axes(top, left, height, width)
        return ValueWindow(self._native(rows.span, columns.span), rows, columns, self.kind == "logits")

    def probs(self) -> Tensor:
        """(K, H, W) float32 probabilities of the whole image."""
        return self.crop(0, 0, *self.size)

    def argmax(self) -> Tensor:
        """(H, W) int64: the segmentor's own answer at image size; a label map's void pixels stay `ignore_index`."""
        height, width = self.size
        if self.kind == "labels":
            return self._nearest(0, 0, height, width)
        labels = torch.zeros(self.size, dtype=torch.int64, device=self.native.device)
        rows = max(1, STRIP_PIXELS // width)
        for top in range(0, height, rows):
            strip = labels[top : top + rows]
            best: Tensor | None = None
            for k, plane in enumerate(self._planes(top, 0, len(strip), width)):
                if best is None:
                    best = plane.clone()
                else:
                    strip.masked_fill_(plane > best, k)
                    torch.maximum(best, plane, out=best)
        return labels

    @cached_property
    def void(self) -> Tensor:
        """(H, W) bool: pixels that a label map leaves unlabelled; all False for logits and probabilities."""
        if self.kind == "labels":
            return self._nearest(0, 0, *self.size) == self.ignore_index
        return torch.zeros(self.size, dtype=torch.bool, device=self.native.device)

    @cached_property
    def present(self) -> Tensor:
        """(K,) bool: classes that occur in a label map (all, if it is all void); all True for the other kinds."""
        if self.kind != "labels":
            return torch.ones(self.num_classes, dtype=torch.bool, device=self.native.device)
        counts = torch.bincount(self.native[self.native != self.ignore_index], minlength=self.num_classes)
        return counts > 0 if bool(counts.any()) else counts == 0

    def _label_probs(self, labels: Tensor) -> Tensor:
        present = self.present.float()
        others = float(present.sum()) - 1
        own = LABEL_CONFIDENCE if others else 1.0
        height, width = labels.shape
        probs = repeat(present * ((1 - own) / max(others, 1)), "k -> k h w", h=height, w=width).clone()
        void = labels == self.ignore_index
        probs.scatter_(0, labels.masked_fill(void, 0)[None], own)
        if bool(void.any()):
            probs = torch.where(void, (present / (others + 1))[:, None, None], probs)
        return probs

    def _nearest(self, top: int, left: int, height: int, width: int) -> Tensor:
        self._check_window(top, left, height, width)
        rows = nearest_index(top, height, self.native.shape[-2], self.size[0]).to(self.native.device)
        columns = nearest_index(left, width, self.native.shape[-1], self.size[1]).to(self.native.device)
        return self.native[rows[:, None], columns]

    def _planes(self, top: int, left: int, height: int, width: int) -> Iterator[Tensor]:
        """The window of F.interpolate(native, size, mode="bilinear", align_corners=False), class by class.

        One class at a time stays in the processor's cache: several times faster than all at once.
        """
        rows, columns = self._axes(top, left, height, width)
        for plane in self.native:
            # Columns first: picking rows of the wider result copies whole rows.
            yield rows.resize(columns.resize(plane[rows.span, columns.span], 1), 0)

    def _native(self, rows: slice, columns: slice) -> Tensor:
        return self.native[:, rows, columns]

    def _axes(self, top: int, left: int, height: int, width: int) -> tuple[LinearAxis, LinearAxis]:
        self._check_window(top, left, height, width)
        rows = LinearAxis(top, height, self.native.shape[1], self.size[0], self.native.device)
        return rows, LinearAxis(left, width, self.native.shape[2], self.size[1], self.native.device)

    def _check_window(self, top: int, left: int, height: int, width: int) -> None:
        inside = 0 <= top < top + height <= self.size[0] and 0 <= left < left + width <= self.size[1]
        if not inside:
            expected = f"a window inside the image of {self.size[0]} x {self.size[1]} (H x W)"
            raise InputError(expected, f"{height} x {width} at ({top}, {left})", "clipping it to the image")


def load_prediction(
    prediction: PredictionLike,
    size: tuple[int, int],
    kind: AnyKind = "auto",
    ignore_index: int = 255,
    num_classes: int | None = None,
) -> Prediction:
    """Reads one prediction into the canonical form.

    Args:
        prediction: (K, h, w) logits or probabilities of any float or integer type and any resolution, K = 1 meaning a
            sigmoid foreground; an (h, w) label map (integers, or a PIL image of mode 1, L, P or I); or the path of a
            file that `read_prediction_file` reads. It is never changed.
        size: (H, W) of the image, in pixels.
        kind: what the values are; "auto" tells it from type, shape and values, and raises where they leave it open.
        ignore_index: label of void pixels in a label map.
        num_classes: K, where known, from 1 to `MAX_CLASSES`; a label map alone implies its largest id + 1.

    Returns:
        The prediction, on the CPU.

    Raises:
        InputError: unreadable, of a wrong shape or type, not finite, with ids outside the classes, of a kind that
            does not fit, or (for "auto") of a kind that the values leave open.
    """
    if not isinstance(kind, str) or kind not in get_args(AnyKind):
        raise InputError(f"kind one of {', '.join(get_args(AnyKind))}", repr(kind)[:60], "one of these")
    if len(size) != 2 or min(size) < 1:
        raise InputError("size as (H, W), both at least 1", str(size), "the image's height and width")
    ignore_index = whole_number("ignore_index", ignore_index, -(2**31), 2**31 - 1)
    num_classes = None if num_classes is None else whole_number("num_classes", num_classes, 1, MAX_CLASSES)
    asked = kind
    if isinstance(prediction, str | os.PathLike):
        prediction, found = read_prediction_file(prediction)
        if kind != "auto" and found not in ("auto", kind):
            raise InputError(f"kind {kind!r}", f"a file that holds {found}", f"kind={found!r}, or leaving kind out")
        kind = kind if found == "auto" else found
    elif isinstance(prediction, Image.Image):
        prediction = _label_ids(prediction, "the label map")
    values = _to_tensor(prediction)
    kind = _resolve_kind(values, kind)
    if kind == "labels":
        labels = values.to(torch.int64)
        count = _check_labels(labels, ignore_index, num_classes, doubt_binary=asked == "auto")
        return Prediction(labels, (size[0], size[1]), "labels", count, ignore_index)
    native = _normalise(values) if kind == "probs" else values
    if native.shape[0] == 1:
        # sigmoid(l) = softmax((0, l)), also between the pixels, since both are linear before the softmax.
        background = 1 - native if kind == "probs" else torch.zeros_like(native)
        native = torch.cat([background, native])
    if num_classes is not None and native.shape[0] != num_classes:
        raise InputError(
            f"a prediction over {num_classes} classes",
            f"{native.shape[0]} channels",
            "a refiner for these classes, or the universal one",
        )
    return Prediction(native, (size[0], size[1]), kind, native.shape[0], ignore_index)


def read_prediction_file(path: str | os.PathLike[str]) -> tuple[np.ndarray, AnyKind]:
    """Reads the array of a prediction file, and its kind where the file says it.

    Args:
        path: `.npz` with the key `logits`, `probs` or `labels` (the first of them that is there), `.npy`, or a `.png`
            label map whose pixel values (palette indices, for a palette) are class ids.

    Raises:
        InputError: no such file, another type, damaged, without a known key, or too large (`array_files.MAX_VALUES`).
    """
    check_file(path, "a prediction file")
    name, suffix = repr(str(path)), Path(path).suffix.lower()
    if suffix == ".png":
        with open_image(path) as image:
            return _label_ids(image, f"label map {name}"), "labels"
    if suffix not in (".npz", ".npy"):
        raise InputError("a prediction file .npz, .npy or .png", name, "saving it as one of these")
    values, key = read_array(path, get_args(Kind))
    return values, cast(AnyKind, key or "auto")


def _label_ids(image: Image.Image, name: str) -> np.ndarray:
    if image.format == "JPEG":
        raise InputError(f"{name} in a lossless format", "a JPEG, whose pixel values are not exact ids", "saving a PNG")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise InputError(
            f"{name} with class ids as pixel values (mode 1, L, P or I)",
            f"mode {image.mode}",
            "mapping colours to class ids, and saving an 8- or 16-bit grey or palette PNG",
        )
    return np.array(decode(image, name)).astype(np.int64)


def _to_tensor(prediction: object) -> Tensor:
    """Finite float32 values in memory of their own, or the integers as they are."""
    if isinstance(prediction, np.ndarray):
        if prediction.dtype.kind not in "biuf":
            raise InputError("a prediction of numbers", f"numpy dtype {prediction.dtype}", "a float or integer array")
        wanted = np.float32 if prediction.dtype.kind == "f" else np.int64
        with np.errstate(over="ignore"):
            values = torch.from_numpy(np.array(prediction, dtype=wanted, order="C"))
        signed = prediction.dtype.kind != "u"
    elif isinstance(prediction, Tensor):
        check_dense(prediction, "a prediction")
        if prediction.is_complex():
            raise InputError("a prediction of real numbers", str(prediction.dtype), "a float or integer tensor")
        wanted_type = torch.float32 if prediction.is_floating_point() else torch.int64
        values = prediction.detach().to("cpu", wanted_type, copy=True).contiguous()
        signed = prediction.dtype.is_signed
    else:
        raise InputError(
            "a prediction as a numpy array, a torch tensor, a PIL image or a path",
            type(prediction).__name__,
            "passing predictions one by one, or ddps.adapters for another library's output",
        )
    _check_shape(values)
    if values.is_floating_point():
        problem = describe_nonfinite(values, "class, row, column" if values.ndim == 3 else "row, column")
        if problem:
            raise InputError("a prediction with finite values", problem, "large negative logits in place of -inf")
    elif not signed and int(values.min()) < 0:  # beyond int64
        raise InputError("whole numbers up to 2**63 - 1", "larger ones", "class ids, or logits in a float type")
    elif values.ndim == 3:
        if not signed and int(values.max()) > 1:
            raise InputError(
                "logits, or probabilities in [0, 1]",
                f"unsigned integers up to {int(values.max())}",
                "dividing by 255 for probabilities in 8 bit, or converting logits to a float type",
            )
        values = values.float()
    return values


def _check_shape(values: Tensor) -> None:
    shape = tuple(values.shape)
    if values.ndim not in (2, 3) or values.numel() == 0:
        hint = "one prediction at a time, prediction[0], or a list" if values.ndim == 4 else "one of these shapes"
        raise InputError("logits or probabilities (K, h, w), or a label map (h, w)", f"shape {shape}", hint)


def _resolve_kind(values: Tensor, kind: AnyKind) -> Kind:
    shape = tuple(values.shape)
    if values.ndim == 2:
        whole = not values.is_floating_point()
        if kind in ("auto", "labels") and whole:
            return "labels"
        if kind == "labels" and bool((values == values.round()).all()):
            return "labels"
        expected = "whole class ids in a label map" if kind == "labels" else "logits or probabilities (K, h, w)"
        hint = "prediction[None] for a sigmoid foreground, or integer class ids for a label map"
        raise InputError(expected, f"{'integers' if whole else 'float values'} of shape {shape}", hint)
    if kind == "labels":
        hint = "prediction[0]" if shape[0] == 1 else "prediction.argmax(0), or kind='logits' or 'probs'"
        raise InputError("a label map (h, w)", f"shape {shape}", hint)
    if kind == "logits":
        return "logits"
    low, high = float(values.min()), float(values.max())
    sums = values.sum(0)
    deviation = float((sums - 1).abs().max())
    if kind == "auto":
        return _tell_kind(shape[0], low, high, deviation)
    # Rounding to 8 bit moves every class by up to 1/510.
    tolerance = 0.05 + shape[0] / 510
    sums_fit = shape[0] == 1 or (deviation <= tolerance and float(sums.min()) > 0)
    if low < 0 or high > 1 + SUM_TOLERANCE or not sums_fit:
        raise InputError(
            "probabilities in [0, 1] that sum to 1 at every pixel",
            f"values {low:.4g} to {high:.4g}, sums {float(sums.min()):.4g} to {float(sums.max()):.4g}",
            "kind='logits', or a softmax over the classes first",
        )
    return "probs"


def _tell_kind(channels: int, low: float, high: float, deviation: float) -> Kind:
    if channels > 1 and low >= 0 and deviation <= SUM_TOLERANCE:
        return "probs"
    if low < 0 or high > 1:
        return "logits"
    what = "one channel" if channels == 1 else "channels that do not sum to 1"
    raise InputError(
        "values that tell logits from probabilities",
        f"{what}, all values in [{low:.4g}, {high:.4g}]",
        "kind='probs' or kind='logits'" + (", or prediction[0] for a label map" if channels == 1 else ""),
    )


def _normalise(values: Tensor) -> Tensor:
    values = values.clamp(0, 1)
    return values if values.shape[0] == 1 else values / values.sum(0)


def _check_labels(labels: Tensor, ignore_index: int, num_classes: int | None, doubt_binary: bool) -> int:
    """Number of classes of a label map, all of whose ids are classes or void."""
    labelled = labels[labels != ignore_index]
    if labelled.numel() == 0:
        if num_classes is None:
            hint = "giving num_classes, or another ignore_index"
            raise InputError("a label map with labelled pixels", f"only void ({ignore_index})", hint)
        return num_classes
    low, high = int(labelled.min()), int(labelled.max())
    if doubt_binary and ignore_index == 255 and (low, high) == (0, 0) and labelled.numel() < labels.numel():
        raise InputError(
            "a label map whose 255 is void or foreground, clearly",
            "only the values 0 and 255",
            "mask // 255 if 255 is the foreground, or kind='labels' if it is void",
        )
    limit = MAX_IMPLIED_CLASSES if num_classes is None else num_classes
    if low < 0 or high >= limit:
        bad = torch.unique(labelled[(labelled < 0) | (labelled >= limit)]).tolist()
        named = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
        if num_classes is None and low >= 0:
            hint = "num_classes=, if there really are so many classes, or consecutive class ids"
        else:
            hint = "ignore_index= if one of them is void, or mapping them to these classes"
        raise InputError(f"class ids 0 to {limit - 1} or void {ignore_index}", f"ids {named}", hint)
    return high + 1 if num_classes is None else num_classes
