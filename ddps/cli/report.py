"""What the commands write: one JSON object on stdout, tables, whole files."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_write
from ..errors import InputError

if TYPE_CHECKING:
    from PIL import Image

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def say_error(error: Exception) -> None:
    """One line on stderr, whatever lines a library's message had."""
    print(f"ddps: error: {' '.join(str(error).split())}", file=sys.stderr)


def show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """`warnings.showwarning` during a command: one line on stderr for the package's own.

    Args:
        otherwise: what shows all others.
    """
    if category.__module__.partition(".")[0] == "ddps":
        print(f"ddps: warning: {message}", file=sys.stderr)
    else:
        otherwise(message, category, *where, **more)


def to_json(value: object) -> str:
    """JSON as every reader takes it: a number that is not defined (nan) becomes null, and so do bytes of a file name
    that are no text an escape."""
    text = json.dumps(_defined(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first one to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(value: float, signed: bool = False) -> str:
    """Two digits after the point; a dash where the number is not defined."""
    if math.isnan(value):
        return "-"
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def check_new(path: Path, overwrite: bool, make_folder: bool = False) -> None:
    """Refuses an output that exists, or that cannot be, before any work goes into it.

    Args:
        path: the file to write.
        overwrite: whether it may exist.
        make_folder: whether its folder will be made, and so may be missing.

    Raises:
        InputError: as said.
    """
    if not path.parent.is_dir() and not make_folder:
        hint = f"creating {str(path.parent)!r} first"
        raise InputError("an output in an existing folder", repr(str(path)), hint)
    if path.is_dir():
        raise InputError("a file as output", f"the folder {str(path)!r}", "adding a file name to it")
    if path.exists() and not overwrite:
        raise InputError("an output that does not exist yet", repr(str(path)), "another path, or --overwrite")


def check_picture(path: Path) -> None:
    """Refuses a picture's file name without a suffix that `write_picture` knows.

    Raises:
        InputError: as said.
    """
    if path.suffix.lower() not in PICTURE_FORMATS:
        raise InputError(f"a picture ending in {', '.join(PICTURE_FORMATS)}", repr(str(path)), "one of these")


def write_picture(picture: "Image.Image", path: Path, overwrite: bool) -> None:
    """Writes a picture, whole or not at all, in the format of its suffix."""
    check_picture(path)
    with atomic_write(path, overwrite) as file:
        picture.convert("RGB").save(file, format=PICTURE_FORMATS[path.suffix.lower()], quality=92)


def write_text(text: str, path: Path, overwrite: bool) -> None:
    """Writes a text file, whole or not at all; what of a file name is no text becomes a question mark."""
    with atomic_write(path, overwrite) as file:
        file.write(text.encode("utf-8", "replace"))


def _defined(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(entry) for entry in value]
    return value
