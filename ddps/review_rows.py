"""The rows of a folder's refined items in a file that grows by one line per item, and that outlives a kill.

A row is written before the mask that it describes. Where a mask is, its row is, too; a row whose mask never came is
written again, and the last one of a name counts.
"""

import json
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .errors import InputError
from .review import Row

BLOCK = 2**16


def read_rows(path: Path, moves_from: float = 0.0) -> dict[str, Row]:
    """Name → row. A last line that a kill or a full disk has cut is left out.

    Args:
        path: the file; there need not be one.
        moves_from: least share of changed pixels, in percent, of the rows that keep their moves, which are most of what
            a row takes in memory.

    Raises:
        InputError: the file holds something else.
    """
    rows: dict[str, Row] = {}
    if not path.exists():
        return rows
    with path.open("rb") as file:
        # The last line ends in a newline, or it is not whole.
        for number, line in enumerate((line for line in file if line.endswith(b"\n")), 1):
            try:
                row = Row.from_dict(json.loads(line))
            except ValueError:  # InputError is one
                got = f"line {number}, {line.rstrip()[:40]!r}"
                raise InputError(f"rows of `ddps refine` in {str(path)!r}", got, "moving the file away") from None
            rows[row.name] = keep_moves(row, moves_from)
    return rows


def keep_moves(row: Row, moves_from: float) -> Row:
    """The row, without its moves where less has changed; see `read_rows`."""
    return row if row.changed is not None and row.changed >= moves_from else replace(row, moves=())


class RowFile:
    """The file, open to add rows, from any thread.

    Args:
        path: is made if there is none; of a file that is there, a last line that is not whole is cut off.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._file, _end_of_last_line(path))

    def add(self, row: Row) -> None:
        """Writes one row. It is in the hands of the operating system when this returns: a kill cannot lose it.

        Raises:
            OSError: a full disk.
        """
        line = memoryview((json.dumps(row.as_dict()) + "\n").encode())
        with self._lock:
            while line:
                line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Closes it, and takes an empty file away."""
        os.close(self._file)
        with suppress(FileNotFoundError):  # somebody has taken it away meanwhile
            if self.path.stat().st_size == 0:
                self.path.unlink()


def _end_of_last_line(path: Path) -> int:
    """How many bytes of a file are whole lines."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = file.seek(max(0, end - BLOCK))
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0
