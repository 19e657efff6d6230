"""What refinement changed in one label map, as a row of figures, and which rows a person should look at.

The score is the share of the labelled pixels that got another class, in percent; the mean uncertainty of the labelled
pixels, in percent as well, decides between rows of one score.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

MOST_MOVES = 5
"""How many pairs of classes a row names."""


@dataclass(frozen=True, slots=True)
class Move:
    """Pixels that went from one class to another.

    Attributes:
        before, after: class ids as in the files.
        share: of the labelled pixels, in percent.
    """

    before: int
    after: int
    share: float


@dataclass(frozen=True, slots=True)
class Row:
    """One refined item.

    Attributes:
        name: stem of its files.
        changed: share of the labelled pixels that got another class, in percent; None where there was nothing to
            compare with: no prediction, or no labelled pixel.
        uncertainty: mean over the labelled pixels (1 minus the margin of the best class), in percent; None without any.
        moves: the largest changes, largest first.
        seconds: that refinement took.
        resized: whether a label map had another size than its image.
    """

    name: str
    changed: float | None
    uncertainty: float | None
    moves: tuple[Move, ...]
    seconds: float
    resized: bool = False

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> "Row":
        """The row that `as_dict` made.

        Raises:
            InputError: another object.
        """
        try:
            assert isinstance(values, dict)
            moves = tuple(Move(int(m["before"]), int(m["after"]), float(m["share"])) for m in values["moves"])
            changed, uncertainty = (
                None if values[key] is None else float(values[key]) for key in ("changed", "uncertainty")
            )
            resized = bool(values["resized"])
            return cls(str(values["name"]), changed, uncertainty, moves, float(values["seconds"]), resized)
        except (AssertionError, KeyError, TypeError, ValueError):
            raise InputError("a row of a refined item", repr(values)[:80], "a file that refinement wrote") from None


def measure(
    name: str,
    before: NDArray[np.int64] | None,
    after: NDArray[np.int64],
    void: NDArray[np.bool_],
    uncertainty: NDArray[np.float32],
    seconds: float,
    resized: bool = False,
) -> Row:
    """The row of one item.

    Args:
        name: of the item.
        before, after: (H, W) class ids; None where nothing was given to compare with.
        void: (H, W), pixels without a label, which count for nothing.
        uncertainty: (H, W) in [0, 1].
        seconds: that refinement took.
        resized: see `Row`.
    """
    labelled = ~void
    count = int(labelled.sum())
    unsure = 100.0 * float(uncertainty[labelled].mean(dtype=np.float64)) if count else None
    if before is None or not count:
        return Row(name, None, unsure, (), seconds, resized)
    moved = labelled & (before != after)
    pairs, sizes = np.unique(np.stack([before[moved], after[moved]]), axis=1, return_counts=True)
    # a stable sort: of moves of one size, the one with the lower ids goes first
    largest = np.argsort(-sizes, kind="stable")[:MOST_MOVES]
    moves = tuple(Move(int(pairs[0, i]), int(pairs[1, i]), 100.0 * int(sizes[i]) / count) for i in largest)
    return Row(name, 100.0 * int(moved.sum()) / count, unsure, moves, seconds, resized)


def rank(rows: Iterable[Row], threshold: float) -> list[Row]:
    """The rows to look at, most changed first, of equally changed ones the most uncertain, then by name.

    Args:
        rows: of any items; those with nothing to compare with are left out.
        threshold: least share of changed pixels, in percent.
    """
    chosen = [row for row in rows if row.changed is not None and row.changed >= threshold]
    return sorted(chosen, key=lambda row: (-(row.changed or 0.0), -(row.uncertainty or 0.0), row.name))
