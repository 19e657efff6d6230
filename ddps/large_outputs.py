"""Outputs too large for memory: rows are appended as they are done, to .npy or to a tiled TIFF."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .atomic import atomic_write, remove_leftovers
from .errors import InputError
from .large_sources import TIFF_SUFFIXES, import_tifffile
from .visualize import Colour

TILE = 512
# a classic TIFF counts its bytes in 32 bits
BIG_FROM = 2**31


class RowWriter:
    """Takes the rows of one output from top to bottom."""

    def __init__(self, file: IO[bytes], dtype: "np.dtype[Any]"):
        self._file, self.dtype = file, dtype

    def write(self, rows: np.ndarray) -> None:
        """Appends (h, W) values."""
        self._file.write(rows.astype(self.dtype, order="C", copy=False).tobytes())


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuses a file name that `open_output` does not know how to write.

    Raises:
        InputError: another suffix, or TIFF without tifffile.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", *TIFF_SUFFIXES):
        raise InputError("an output ending in .tif, .tiff or .npy", repr(str(path)), "one of these")
    if suffix in TIFF_SUFFIXES:
        import_tifffile(f"tifffile, which writes {str(path)!r}")


@contextmanager
def open_output(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    dtype: "np.dtype[Any]",
    palette: Sequence[Colour] = (),
    overwrite: bool = False,
) -> Iterator[RowWriter]:
    """Opens an output for its rows; it gets its name once the block ends without an error, and is whole then.

    Args:
        path: .npy, or .tif or .tiff for tiles of 512 x 512 pixels with deflate compression, BigTIFF where needed.
        size: (H, W) in pixels.
        dtype: uint8 or uint16.
        palette: colours of the values from 0 on, which a TIFF of uint8 keeps; others are black.
        overwrite: whether a file that is there may be replaced.

    Raises:
        InputError: the file exists, or cannot be.
    """
    check_output(path)
    remove_leftovers(Path(path).parent, of=Path(path).name)  # of this size they would fill a disk
    with atomic_write(path, overwrite) as file:
        if Path(path).suffix.lower() == ".npy":
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": size}
            np.lib.format.write_array_header_1_0(file, header)
            yield RowWriter(file, dtype)
        else:
            # Rows wait beside the output until the last one is there: tifffile asks for tiles, and is not handed them.
            with tempfile.TemporaryFile(dir=Path(path).parent) as rows:
                yield RowWriter(rows, dtype)
                rows.seek(0)
                _write_tiff(file, rows, size, dtype, palette)


def _write_tiff(
    file: IO[bytes], rows: IO[bytes], size: tuple[int, int], dtype: "np.dtype[Any]", palette: Sequence[Colour]
) -> None:
    tifffile = import_tifffile("tifffile")
    colours = None
    if palette and dtype == np.uint8:
        colours = np.zeros((3, 256), dtype=np.uint16)
        colours[:, : len(palette)] = 257 * np.array(palette[:256], dtype=np.uint16).T
    with tifffile.TiffWriter(file, bigtiff=size[0] * size[1] * dtype.itemsize >= BIG_FROM) as writer:
        writer.write(
            _tiles(rows, size, dtype),
            shape=size,
            dtype=dtype,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack" if colours is None else "palette",
            colormap=colours,
            metadata=None,
            maxworkers=1,
        )


def _tiles(rows: IO[bytes], size: tuple[int, int], dtype: "np.dtype[Any]") -> Iterator[np.ndarray]:
    height, width = size
    for top in range(0, height, TILE):
        tall = min(TILE, height - top)
        data = rows.read(tall * width * dtype.itemsize)
        band = np.frombuffer(data, dtype).reshape(tall, width)
        band = np.pad(band, ((0, TILE - tall), (0, -width % TILE)))
        for left in range(0, width, TILE):
            yield np.ascontiguousarray(band[:, left : left + TILE])
