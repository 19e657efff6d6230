"""A canvas that forgets: refined tiles are kept until the last part of the image that they have a say in is done."""

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from .canvas import WINDOW, Canvas
from .large_prediction import StreamedPrediction
from .prediction_window import LabelWindow
from .slots import SlotPlan
from .tiling import Tile, Turn, split


class LargeCanvas(Canvas):
    """`Canvas` over a prediction that is read window by window.

    Args:
        prediction, overlap, mix, hedge: as for `Canvas`.
    """

    def __init__(self, prediction: StreamedPrediction, overlap: int, mix: float, hedge: float = 0.0):
        super().__init__(prediction, overlap, mix, hedge=hedge)
        self._moved = self._outline = 0

    def forget(self, turns: dict[Tile, Turn], index: int) -> None:
        """Lets go of tiles that have no say in any part after that of turn `index`."""
        self.pieces = [piece for piece in self.pieces if turns[piece.tile].until > index]

    def count(self, area: Tile) -> None:
        """Counts one part of the image for `displacement`, which is then that of all counted parts."""
        height, width = self.prediction.size
        for window in split(area, WINDOW):
            answer = self._pooled(window, 1.0).answer()
            # one pixel more to the right and below, which outlines are told by
            tall, wide = min(window.height + 1, height - window.top), min(window.width + 1, width - window.left)
            seen = self.prediction.window(window.top, window.left, tall, wide)
            assert isinstance(seen, LabelWindow)
            own = seen.labels
            self._moved += int(((answer.labels != answer.own) & (answer.own != self.prediction.ignore_index)).sum())
            outline = torch.zeros_like(own, dtype=torch.bool)
            outline[:-1] |= own[1:] != own[:-1]
            outline[:, :-1] |= own[:, 1:] != own[:, :-1]
            self._outline += int(outline[: window.height, : window.width].sum())

    def displacement(self) -> float:
        """Changes per outline pixel of what `count` has seen."""
        return self._moved / max(1, self._outline)


def parts(canvas: LargeCanvas, turns: Sequence[Turn], supply: Callable[[Tile], None]) -> Iterator[Tile]:
    """Parts of the image as they are done: the canvas answers for each of them until the next one is asked for.

    Args:
        canvas: that `supply` adds tiles to.
        turns: of `plan_turns`.
        supply: adds what there is to say about a tile.
    """
    by_tile = {turn.tile: turn for turn in turns}
    for index, turn in enumerate(turns):
        supply(turn.tile)
        yield turn.done
        canvas.forget(by_tile, index)


@dataclass(frozen=True)
class _Stored:
    plan: SlotPlan
    start: int
    length: int


class Spool:
    """Refined tiles on disk, for a label map: how far its outlines are trusted is known once all tiles are refined.

    Args:
        folder: where the temporary file lies; it has no name there on most systems, and is gone when closed.
    """

    def __init__(self, folder: Path):
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._stored: dict[Tile, _Stored] = {}

    def keep(self, canvas: LargeCanvas, tile: Tile) -> None:
        """Stores the tile that was just added to a canvas."""
        piece = canvas.pieces[-1]
        assert piece.tile == tile
        # most probabilities are 0 or 1: the fastest level makes them a tenth
        data = zlib.compress(piece.probs.contiguous().numpy().tobytes(), 1)
        self._stored[tile] = _Stored(piece.plan, self._file.tell(), len(data))
        self._file.write(data)

    def give_back(self, canvas: LargeCanvas, tile: Tile) -> None:
        """Adds the tile to a canvas again, if there was anything to say about it."""
        if tile not in self._stored:
            return
        stored = self._stored[tile]
        self._file.seek(stored.start)
        values = np.frombuffer(bytearray(zlib.decompress(self._file.read(stored.length))), dtype=np.float16)
        canvas.add(tile, stored.plan, torch.from_numpy(values).view(-1, tile.height, tile.width))

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
