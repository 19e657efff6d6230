"""The rows of a folder that several processes refine: each has a file of its own, and the first puts them together.

Two processes cannot add to one file: on file systems that machines share, their lines would run into each other.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..review import Row
from ..review_rows import RowFile, keep_moves, read_rows
from .refine_plan import ROWS

_PARTS = "summary.part*.jsonl"


def rows_path(folder: Path, rank: int) -> Path:
    """Where a process adds its rows; the first one's are the folder's."""
    return folder / (ROWS if rank == 0 else f"summary.part{rank}.jsonl")


def collect_rows(folder: Path, moves_from: float = 0.0) -> dict[str, Row]:
    """Name → row of everything that was refined into a folder.

    What other processes than the first have left there, in this run or in one that was killed, goes into the folder's
    own file; a kill in between leaves rows twice, which changes nothing, and a full disk leaves them where they are. No
    other process may be adding rows.

    Args:
        folder: of the outputs.
        moves_from: see `read_rows`; what is in the files keeps all moves.

    Raises:
        InputError: a file that holds something else.
    """
    rows = read_rows(folder / ROWS, moves_from)
    parts = {part: read_rows(part) for part in sorted(folder.glob(_PARTS))}
    for of_part in parts.values():
        rows |= {name: keep_moves(row, moves_from) for name, row in of_part.items()}
    with suppress(OSError):
        if any(parts.values()):
            _add(folder / ROWS, [row for of_part in parts.values() for row in of_part.values()])
        for part in parts:
            part.unlink()
    return rows


def _add(path: Path, rows: Sequence[Row]) -> None:
    file = RowFile(path)
    try:
        for row in rows:
            file.add(row)
    finally:
        file.close()
