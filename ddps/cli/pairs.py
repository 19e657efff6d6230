"""Files of several folders that belong together: they share their stem."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from ..errors import InputError

PREDICTION_SUFFIXES = (".npz", ".npy", ".png")
File = TypeVar("File", str, Path)


def check_partners(predictions: Mapping[str, str | Path], partners: Iterable[str], what: str) -> None:
    """Refuses predictions without an image or a mask: a set whose parts do not fit together.

    Args:
        predictions: stem → file, or its name.
        partners: stems that there are.
        what: "image" or "mask", in the error.

    Raises:
        InputError: some prediction has no partner.
    """
    alone = sorted(set(predictions) - set(partners))
    if alone:
        example = Path(predictions[alone[0]]).name
        got = f"{len(alone)} of {len(predictions)} without one, such as {example}"
        raise InputError(f"{what} of the same stem for every prediction", got, f"adding it, or moving {example} away")


def split_partners(predictions: Mapping[str, File], partners: Iterable[str]) -> tuple[dict[str, File], list[File]]:
    """Parts predictions with an image from those without.

    Args:
        predictions: stem → file, or its name.
        partners: stems that there are.

    Raises:
        InputError: no prediction has a partner.
    """
    known = set(partners)
    paired = {stem: path for stem, path in predictions.items() if stem in known}
    if not paired:
        check_partners(predictions, known, "an image")
    return paired, [path for stem, path in predictions.items() if stem not in known]


def name_item(error: Exception, name: str) -> InputError:
    """The error with the file that caused it."""
    if isinstance(error, InputError):
        return InputError(f"{name}: {error.expected}", error.got, error.hint)
    return InputError(f"{name}: files that can be read and written", str(error), "checking them")
