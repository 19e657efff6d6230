"""Files too large for memory, read window by window: .npy, TIFF, and small ones of any kind that Pillow reads."""

import os
from collections import OrderedDict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from .errors import InputError, one_line
from .inputs import check_file, decode, load_image, open_image

TIFF_SUFFIXES = (".tif", ".tiff")
INSTALL = "pip install 'ddps[large]'"
CONVERT = "converting it to a tiled TIFF, or saving the pixels with np.save"
PILLOW_PIXELS = 64 * 1024 * 1024
"""Files that only Pillow reads, which decodes them as a whole, may have this many pixels."""
CACHE_BYTES = 128 * 1024 * 1024
"""Decoded parts of a TIFF that are kept: tiles overlap, and would otherwise decode the same parts again."""


class Raster(Protocol):
    """Values of a file, or of an array, of which only the window that is asked for comes into memory.

    Attributes:
        name: for messages.
        shape: (H, W), (H, W, C) or, for a segmentor's planes, (K, h, w).
        dtype: of the values.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> "np.dtype[Any]": ...

    def read(self, rows: slice, columns: slice, plane: int | None = None) -> np.ndarray:
        """A window in memory of its own, of all channels, or of one plane of (K, h, w)."""
        ...


class ArrayRaster:
    """A numpy array, or an .npy file.

    A file is mapped for every window anew: what a mapping has seen counts as memory of the process until it is closed.

    Raises:
        InputError: not a whole .npy file.
    """

    def __init__(self, source: np.ndarray | Path):
        self._source = source
        self.name = "the array" if isinstance(source, np.ndarray) else repr(str(source))
        values = self._open()
        self.shape, self.dtype = values.shape, values.dtype

    def _open(self) -> np.ndarray:
        if isinstance(self._source, np.ndarray):
            return self._source
        try:
            opened: np.ndarray = np.load(self._source, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            hint = "saving the array again with np.save"
            raise InputError(f"{self.name} as a whole .npy file", one_line(error), hint) from None
        return opened

    def read(self, rows: slice, columns: slice, plane: int | None = None) -> np.ndarray:
        values = self._open()
        return np.array(values[rows, columns] if plane is None else values[plane, rows, columns], order="C")


class PillowRaster:
    """A decoded picture of moderate size, or the numbers of one."""

    def __init__(self, picture: Image.Image, name: str):
        self.picture, self.name = picture, name
        self.dtype = np.dtype(np.uint8)
        self.shape: tuple[int, ...] = (picture.height, picture.width)

    def read(self, rows: slice, columns: slice, plane: int | None = None) -> np.ndarray:
        return np.array(self.picture.crop((columns.start, rows.start, columns.stop, rows.stop)))


class EveryNth:
    """Of another raster's rows and columns every n-th, from the middle of the first n on.

    Args:
        raster: (H, W), or (K, h, w) of planes.
        n: at least 1.
    """

    STRIP_ROWS = 128

    def __init__(self, raster: Raster, n: int):
        self._raster, self._n = raster, n
        self.name, self.dtype = raster.name, raster.dtype
        sides = (len(range(n // 2, side, n)) for side in raster.shape[-2:])
        self.shape = (*raster.shape[:-2], *sides)

    def read(self, rows: slice, columns: slice, plane: int | None = None) -> np.ndarray:
        n = self._n
        wide = slice(columns.start * n + n // 2, (columns.stop - 1) * n + n // 2 + 1)
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        for first in range(rows.start, rows.stop, self.STRIP_ROWS):
            last = min(first + self.STRIP_ROWS, rows.stop)
            part = self._raster.read(slice(first * n + n // 2, (last - 1) * n + n // 2 + 1), wide, plane)
            values[first - rows.start : last - rows.start] = part[::n, ::n]
        return values


class TiffRaster:
    """The first page of a tiled or striped TIFF or BigTIFF, decoded part by part.

    `indexed` says whether its values are indices into a palette.

    Raises:
        InputError: not a whole TIFF file, one whose layout is not read, or tifffile is not installed.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, repr(str(path))
        tifffile = import_tifffile(f"tifffile, which reads {self.name}")
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                self.shape, self.dtype = tuple(page.shape), np.dtype(page.dtype)
                tiled, strips = (page.tilelength, page.tilewidth), (page.rowsperstrip, page.imagewidth)
                self._part = tiled if page.is_tiled else strips
                layout = (page.planarconfig, page.photometric.name, page.tags.get("Orientation"))
                self._places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
                self._decode = partial(page.decode, jpegtables=page.jpegtables)
        except Exception as error:  # a damaged file makes tifffile raise nearly anything
            raise self._damaged(one_line(error)) from None
        self._across = -(-self.shape[1] // self._part[1]) if len(self.shape) > 1 else 0
        self._check_layout(*layout)
        self.indexed = layout[1] == "PALETTE"
        parts = -(-self.shape[0] // self._part[0]) * self._across
        if len(self._places) < parts or max(map(sum, self._places)) > path.stat().st_size:
            raise self._damaged("a file that ends before its last pixel")
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached = 0

    def _check_layout(self, planar: int, photometric: str, orientation: Any) -> None:
        problem = None
        if len(self.shape) not in (2, 3):
            problem = f"pixels of shape {self.shape}"
        elif len(self.shape) == 3 and planar == 2:
            problem = "channels in separate planes"
        elif photometric == "MINISWHITE":
            problem = "inverted grey"
        elif orientation is not None and orientation.value != 1:
            problem = f"orientation {orientation.value}"
        if problem:
            raise InputError(f"{self.name} as upright rows of grey, RGB or class ids", problem, CONVERT)

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.name} as a whole, readable TIFF", reason, "writing or downloading it again")

    def read(self, rows: slice, columns: slice, plane: int | None = None) -> np.ndarray:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        values = np.empty((height, width, *self.shape[2:]), self.dtype)
        tall, wide = self._part
        for row in range(rows.start // tall, -(-rows.stop // tall)):
            for column in range(columns.start // wide, -(-columns.stop // wide)):
                top, left = row * tall, column * wide
                first, before = max(top, rows.start), max(left, columns.start)
                last, after = min(top + tall, rows.stop), min(left + wide, columns.stop)
                part = self._decoded(row * self._across + column)
                part = part[first - top : last - top, before - left : after - left]
                inside = slice(first - rows.start, last - rows.start)
                values[inside, before - columns.start : after - columns.start] = part
        return values

    def _decoded(self, index: int) -> np.ndarray:
        """Part number `index` as (height, width[, C])."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        start, length = self._places[index]
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = file.read(length)
            part, _, shape = self._decode(data or None, index)
        except Exception as error:  # as when the file was opened
            if "imagecodecs" in str(error):
                hint = "pip install imagecodecs, or deflate compression"
                raise InputError(f"{self.name} in a compression that is installed", one_line(error), hint) from None
            raise self._damaged(one_line(error)) from None
        # a part that was never written is zero everywhere
        part = np.zeros(shape, self.dtype) if part is None else part
        answer: np.ndarray = part.reshape(part.shape[1:3] + self.shape[2:])
        self._cache[index] = answer
        self._cached += answer.nbytes
        while self._cached > CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return answer


class ImageWindows:
    """An image, of which windows are read as `refine` would have cut them from the whole.

    Args:
        raster: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a picture of Pillow's.

    Raises:
        InputError: another shape or type.
    """

    def __init__(self, raster: Raster):
        shape = raster.shape
        if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            hint = "channels last, (H, W, 3); of other bands, choose three"
            raise InputError(f"image {raster.name} of shape (H, W, 3) or (H, W)", f"shape {shape}", hint)
        self.raster, self.size = raster, (shape[0], shape[1])
        # its type is wrong before anything else has been done
        self[:, 0:1, 0:1]

    def __getitem__(self, window: tuple[slice, slice, slice]) -> Tensor:
        """(3, h, w) float32 in [0, 1], of all channels, as `(3, H, W)[:, rows, columns]` would be."""
        _, rows, columns = window
        if isinstance(self.raster, PillowRaster):
            box = (columns.start, rows.start, columns.stop, rows.stop)
            return load_image(self.raster.picture.crop(box))
        return load_image(self.raster.read(rows, columns))


def open_large_image(image: str | os.PathLike[str] | np.ndarray) -> ImageWindows:
    """Opens an image without reading it: an .npy file, a TIFF, an array, or a file of moderate size for Pillow.

    Raises:
        InputError: no such file, another shape or type, damaged, or too large for Pillow.
    """
    raster = open_raster(image, "an image file")
    if isinstance(raster, TiffRaster) and raster.indexed:
        raise InputError(f"image {raster.name} in RGB or grey", "palette indices", CONVERT)
    return ImageWindows(raster)


def open_raster(source: str | os.PathLike[str] | np.ndarray, what: str) -> Raster:
    """Opens an array, an .npy file, a TIFF, or a picture of at most `PILLOW_PIXELS` pixels.

    Args:
        source: path or array.
        what: the file is, for messages.
    """
    if isinstance(source, np.ndarray):
        return ArrayRaster(source)
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"{what}, or a numpy array", type(source).__name__, "a path, or np.memmap")
    check_file(source, what)
    path = Path(source)
    if path.suffix.lower() == ".npy":
        return ArrayRaster(path)
    if path.suffix.lower() in TIFF_SUFFIXES:
        return TiffRaster(path)
    if path.suffix.lower() == ".npz":
        hint = "np.save, whose .npy files can be read in parts"
        raise InputError(f"{what} that can be read in parts", f"the archive {str(path)!r}", hint)
    return PillowRaster(_decoded_picture(path), repr(str(path)))


def _decoded_picture(path: Path) -> Image.Image:
    try:
        with open_image(path) as opened:
            size = f"{opened.width} x {opened.height}"
            if opened.width * opened.height <= PILLOW_PIXELS:
                return decode(opened, f"image {str(path)!r}")
    except InputError as error:
        if not error.expected.endswith(" pixels"):
            raise
        # more than Pillow is ever given: raising that limit would not help here
        size = error.got
    width, height = map(int, size.split(" x "))
    got = f"a {width * height / 1e9:.2g}-gigapixel {path.suffix[1:].upper() or 'file'} of {size}"
    raise InputError(f"tiled TIFF or .npy above {PILLOW_PIXELS:,} pixels", got, CONVERT)


def import_tifffile(what: str) -> Any:
    """The library tifffile, which has no types.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("tifffile") is None:
        raise InputError(what, "an environment without it", f"{INSTALL}, or .npy files")
    return import_module("tifffile")
