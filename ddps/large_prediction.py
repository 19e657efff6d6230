"""A segmentor's prediction for an image too large for memory: `Prediction`, read window by window."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .large_sources import ArrayRaster, EveryNth, PillowRaster, Raster, open_raster
from .predictions import Prediction, read_prediction_file
from .resize import coarse_size, nearest_index

SCAN_VALUES = 1 << 22
MOST_IDS = 1 << 16


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedPrediction(Prediction):
    """A prediction whose values stay where they are until a window asks for them.

    Attributes:
        native: only its shape is that of the values.
        raster: (h, w) label map, or (K, h, w) logits or probabilities, K = 1 meaning a sigmoid foreground.
        seen: (K,) bool, classes that occur in a label map.
    """

    raster: Raster
    seen: Tensor

    @cached_property
    def present(self) -> Tensor:
        return self.seen

    def coarse(self, factor: int) -> "StreamedPrediction":
        size, every = coarse_size(self.size, self.native.shape[-2:], factor)
        if every == 1:
            return replace(self, size=size)
        raster = EveryNth(self.raster, every)
        native = torch.zeros(()).expand((*self.native.shape[:-2], *raster.shape[-2:]))
        return replace(self, native=native, size=size, raster=raster)

    def _nearest(self, top: int, left: int, height: int, width: int) -> Tensor:
        self._check_window(top, left, height, width)
        rows = nearest_index(top, height, self.native.shape[-2], self.size[0])
        columns = nearest_index(left, width, self.native.shape[-1], self.size[1])
        first, before = int(rows[0]), int(columns[0])
        part = self.raster.read(slice(first, int(rows[-1]) + 1), slice(before, int(columns[-1]) + 1))
        return torch.from_numpy(part.astype(np.int64))[(rows - first)[:, None], columns - before]

    def _native(self, rows: slice, columns: slice) -> Tensor:
        return torch.stack(list(self._native_planes(rows, columns)))

    def _planes(self, top: int, left: int, height: int, width: int) -> Iterator[Tensor]:
        rows, columns = self._axes(top, left, height, width)
        for plane in self._native_planes(rows.span, columns.span):
            yield rows.resize(columns.resize(plane, 1), 0)

    def _native_planes(self, rows: slice, columns: slice) -> Iterator[Tensor]:
        """A window of every class at the prediction's own resolution, as `load_prediction` makes it of the whole."""
        count = self.raster.shape[0]
        planes = (_float(self.raster.read(rows, columns, k)) for k in range(count))
        if self.kind == "probs":
            values = torch.stack(list(planes)).clamp(0, 1)
            yield from torch.cat([1 - values, values]) if count == 1 else values / values.sum(0)
        else:
            for plane in planes:
                if count == 1:
                    yield torch.zeros_like(plane)
                yield plane


def load_streamed(
    source: str | os.PathLike[str] | np.ndarray, size: tuple[int, int], judge: Callable[[np.ndarray], Prediction]
) -> StreamedPrediction:
    """Opens a prediction and reads through it once: what is wrong with it is said before any work goes into it.

    Args:
        source: .npy file or array of (K, h, w) logits or probabilities, or a label map (h, w) as an array, .npy, TIFF,
            or a .png of moderate size.
        size: (H, W) of the image, in pixels.
        judge: `load_prediction`, all but the prediction being said. It is asked about few pixels that stand for all.

    Raises:
        InputError: whatever `load_prediction` would say.
    """
    raster = open_raster(source, "a prediction file .npy, .tif or .png")
    if isinstance(raster, PillowRaster):
        assert not isinstance(source, np.ndarray)
        raster = ArrayRaster(_read_small(source))
    shape = raster.shape
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and not isinstance(raster, ArrayRaster)):
        hint = "class ids in one channel, or .npy for logits and probabilities"
        raise InputError("a label map (h, w), or (K, h, w) logits or probabilities", f"shape {shape}", hint)
    integers = "biu" if len(shape) == 2 else "biuf"
    if raster.dtype.kind not in integers:
        expected = "whole class ids in a label map (h, w)" if len(shape) == 2 else "a prediction of numbers"
        raise InputError(expected, f"{raster.dtype} of shape {shape}", "an integer type, such as .astype(np.uint8)")
    judged = judge(_distinct(raster) if len(shape) == 2 else _extreme_pixels(raster))
    native = torch.zeros(()).expand(shape if len(shape) == 2 else (judged.num_classes, *shape[1:]))
    return StreamedPrediction(
        native, size, judged.kind, judged.num_classes, judged.ignore_index, raster=raster, seen=judged.present
    )


def _read_small(path: str | os.PathLike[str]) -> np.ndarray:
    if Path(path).suffix.lower() != ".png":
        raise InputError("a prediction file .npy, .tif or .png", repr(str(path)), "saving it as one of these")
    labels, _ = read_prediction_file(path)
    return labels.astype(np.uint16 if labels.min() >= 0 and labels.max() < MOST_IDS else np.int64)


def _bands(height: int, values_per_row: int) -> Iterator[slice]:
    rows = max(1, SCAN_VALUES // values_per_row)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _distinct(raster: Raster) -> np.ndarray:
    """(1, n) int64: every id of a label map once. Number of classes, void and faults of the map are theirs."""
    height, width = raster.shape
    counted = np.zeros(MOST_IDS, dtype=np.bool_)
    others: set[int] = set()
    for rows in _bands(height, width):
        band = raster.read(rows, slice(0, width)).reshape(-1)
        if band.dtype.kind == "b" or (band.min() >= 0 and band.max() < MOST_IDS):
            counted |= np.bincount(band.astype(np.uint16), minlength=MOST_IDS) > 0
        else:
            others.update(np.unique(band).tolist())
        if len(others) > MOST_IDS:
            got = f"more than {MOST_IDS} different numbers in {raster.name}"
            raise InputError(f"a label map of at most {MOST_IDS} classes", got, "class ids, not instances or colours")
    return np.array([sorted({*np.flatnonzero(counted).tolist(), *others})], dtype=np.int64)


def _extreme_pixels(raster: Raster) -> np.ndarray:
    """(K, 1, n): of every few rows the pixels with the least and largest value and sum, which tell kind and faults."""
    count, height, width = raster.shape
    found = []
    for rows in _bands(height, count * width):
        band = np.stack([raster.read(rows, slice(0, width), k) for k in range(count)]).reshape(count, -1)
        values = _float(band)
        if not bool(torch.isfinite(values).all()):
            got = f"NaN or infinite values in rows {rows.start} to {rows.stop - 1} of {raster.name}"
            raise InputError("a prediction with finite values", got, "large negative logits in place of -inf")
        sums = values.sum(0)
        extremes = (values.amin(0).argmin(), values.amax(0).argmax(), sums.argmin(), sums.argmax())
        found.append(band[:, [int(index) for index in extremes]])
    return np.concatenate(found, 1)[:, None]


def _float(values: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(np.float32))
