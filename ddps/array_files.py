"""Numpy files that may come from a stranger: what they claim is held against what they hold before it is unpacked."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, one_line

MAX_VALUES: int | None = 1 << 31
"""Larger arrays are refused before they are unpacked: archives of 10 MB may hold 10 GB. None lifts the limit."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# numpy refuses longer headers, but reads them whole before it does
_HEADER_BYTES = 1 << 16
_VALUE_BYTES = 8


def read_array(path: str | os.PathLike[str], keys: Sequence[str]) -> tuple[NDArray[np.generic], str | None]:
    """Reads the array of an `.npy` file, or of an `.npz` archive the first of some keys that is there.

    Args:
        path: the file; its content, not its suffix, tells which of the two it is.
        keys: of the archive.

    Returns:
        The array, and its key; None for `.npy`.

    Raises:
        InputError: damaged, holding objects, without such a key, or larger than `MAX_VALUES`.
    """
    hint = "fewer values; if the file is trusted, raise ddps.array_files.MAX_VALUES"
    with _opened(path, keys) as members:
        for key, file, size in members:
            _check_claim(path, file, size, MAX_VALUES, hint)
            return np.lib.format.read_array(file, allow_pickle=False), key
    raise AssertionError("unreachable")  # an archive without a key is refused above


def check_values(path: str | os.PathLike[str], keys: Sequence[str], most: int, hint: str) -> None:
    """Refuses a file of which an array under one of the keys claims more values than `most`; unpacks nothing.

    Raises:
        InputError: as said, and for what `read_array` would say without reading.
    """
    with _opened(path, keys) as members:
        for _, file, size in members:
            _check_claim(path, file, size, most, hint)


@contextmanager
def _opened(path: str | os.PathLike[str], keys: Sequence[str]) -> Iterator[Iterator[tuple[str | None, IO[bytes], int]]]:
    """The (key, open file, size in bytes) of the arrays; whatever goes wrong with them is an InputError."""
    name = repr(str(path))
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            yield _members(file, name, keys) if start in _ZIP else iter([(None, file, os.fstat(file.fileno()).st_size)])
    except InputError:
        raise
    except Exception as error:  # damaged files raise nearly anything, from BadZipFile to zlib.error
        expected = f"{name} as a whole numpy file without pickled objects"
        raise InputError(expected, one_line(error), "saving it again") from None


def _members(file: IO[bytes], name: str, keys: Sequence[str]) -> Iterator[tuple[str | None, IO[bytes], int]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        known = [(key, entries[stored]) for key in keys for stored in (f"{key}.npy", key) if stored in entries]
        if not known:
            found = ", ".join(entry.removesuffix(".npy") for entry in entries)[:100] or "none"
            listed = f"{', '.join(keys[:-1])} or {keys[-1]}"
            raise InputError(f"{name} with the key {listed}", f"keys: {found}", f"np.savez(path, {keys[0]}={keys[0]})")
        for key, entry in known:
            with archive.open(entry) as member:
                # zipfile never unpacks more than an entry's stated size
                yield key, member, entry.file_size


def _check_claim(path: str | os.PathLike[str], file: IO[bytes], size: int, most: int | None, hint: str) -> None:
    """Refuses an array that is too large, or larger than its file; leaves the file at its start."""
    if most is not None and size > _VALUE_BYTES * most + _HEADER_BYTES:
        raise _too_many(path, size // _VALUE_BYTES, most, hint)
    start = file.read(12)
    file.seek(0)
    version = np.lib.format.read_magic(file)
    if version != (1, 0) and int.from_bytes(start[8:12], "little") > _HEADER_BYTES:
        raise ValueError("its header is too long")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    count = 1
    for side in shape:  # not np.prod, which overflows
        count *= side
    left = size - file.tell()
    if not dtype.hasobject and count * dtype.itemsize > left:
        raise ValueError(f"{left} bytes of values, which cannot hold the {count} values that it claims"[:200])
    if most is not None and count > most:
        raise _too_many(path, count, most, hint)
    file.seek(0)


def _too_many(path: str | os.PathLike[str], count: int, most: int, hint: str) -> InputError:
    expected = f"an array of at most {most / 1e6:,.0f} million values"
    return InputError(expected, f"{str(path)!r} with {count / 1e6:,.0f} million", hint)
