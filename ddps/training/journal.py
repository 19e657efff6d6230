"""What a run writes about itself: its settings, `log.jsonl`, and lines and a bar on stderr."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ..atomic import atomic_write, remove_leftovers
from ..errors import InputError
from ..hub import WEIGHTS_FILE

LOG_FILE = "log.jsonl"


class Journal:
    """One rank's part of it: only rank 0 writes.

    Args:
        folder: of the run.
        steps: number of optimizer steps.
        rank: of this process.
    """

    def __init__(self, folder: Path, steps: int, rank: int):
        self.folder, self.steps, self.rank = folder, steps, rank

    def keep_settings(self, path: Path, text: str) -> None:
        """Writes a run's settings when it begins; when it goes on, takes away what a kill left half written.

        Raises:
            InputError: the file is there and holds others.
        """
        if path.is_file() and path.read_text() != text:
            raise InputError(f"the settings that {path} holds", "other settings", "another --out folder for a new run")
        if self.rank != 0:
            return
        # Those beside weights tell a save that was killed halfway, until it is done again.
        remove_leftovers(*(place for place, _, files in os.walk(self.folder) if WEIGHTS_FILE not in files))
        _cut_half_line(self.folder / LOG_FILE)
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, overwrite=True) as file:
                file.write(text.encode())

    def log(self, row: Mapping[str, object]) -> None:
        """One line of JSON."""
        if self.rank == 0:
            with (self.folder / LOG_FILE).open("ab") as file:
                file.write((json.dumps(row) + "\n").encode())

    def say(self, text: str) -> None:
        """One line on stderr."""
        if self.rank == 0:
            print(("\r" if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)

    def progress(self, step: int, loss: float) -> None:
        """A bar on stderr, on a terminal."""
        if self.rank == 0 and sys.stderr.isatty():
            part = step / self.steps
            bar = "#" * int(30 * part) + "." * (30 - int(30 * part))
            print(f"\r[{bar}] {step}/{self.steps} loss {loss:.4f} ", end="", file=sys.stderr, flush=True)


def _cut_half_line(path: Path) -> None:
    """A full disk may have ended the last line early; the next one would run into it."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
