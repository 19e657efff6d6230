"""Files of several folders that belong together: they share their stem."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
PREDICTION_SUFFIXES = (".npz", ".npy", ".png")
MASK_SUFFIXES = (".png",)


def files_by_stem(folder: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    """Lists a folder.

    Args:
        folder: searched without its subfolders; hidden files are left out.
        suffixes: of the files that count, in lower case.
        what: what the files are, in an error.

    Returns:
        Stem → file, in the order of the stems.

    Raises:
        InputError: no such folder, no such file in it, or two with one stem.
    """
    if not folder.is_dir():
        got = f"{str(folder)!r}, which " + ("is a file" if folder.exists() else "does not exist")
        raise InputError(f"a folder of {what}", got, "checking the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if path.stem in found:
            got = f"{found[path.stem].name} and {path.name} in {str(folder)!r}"
            raise InputError(f"one file per stem among the {what}", got, "moving one of them away")
        found[path.stem] = path
    if not found:
        hint = f"files ending in {', '.join(suffixes)}, directly in the folder"
        raise InputError(f"{what} in {str(folder)!r}", "none", hint)
    return dict(sorted(found.items()))


def check_partners(predictions: Mapping[str, Path], partners: Iterable[str], what: str) -> None:
    """Refuses predictions without an image or a mask: a set whose parts do not fit together.

    Args:
        predictions: stem → file.
        partners: stems that there are.
        what: "image" or "mask", in the error.

    Raises:
        InputError: some prediction has no partner.
    """
    alone = sorted(set(predictions) - set(partners))
    if alone:
        example = predictions[alone[0]].name
        got = f"{len(alone)} of {len(predictions)} without one, such as {example}"
        raise InputError(f"{what} of the same stem for every prediction", got, f"adding it, or moving {example} away")


def name_item(error: Exception, name: str) -> InputError:
    """The error with the file that caused it."""
    if isinstance(error, InputError):
        return InputError(f"{name}: {error.expected}", error.got, error.hint)
    return InputError(f"{name}: files that can be read and written", str(error), "checking them")
