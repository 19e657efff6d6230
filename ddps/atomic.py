"""Files are written whole or not at all: a crash or a full disk never leaves half a file under its real name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path`, which takes its name once the block ends without an error.

    The file is synced to disk before it gets its name; when the block raises, `path` is as it was before.

    Args:
        path: file to write; its folder must exist.
        overwrite: whether a file that is already there may be replaced.

    Returns:
        A binary file, open for writing; its `name` is the temporary path, for writers that want a path.

    Raises:
        InputError: `path` exists and `overwrite` is False, is a folder, or lies in a folder that does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError("a path in an existing folder", repr(str(target)), f"creating {str(target.parent)!r} first")
    if target.is_dir():
        raise InputError("the path of a file", f"the folder {str(target)!r}", "adding a file name to it")
    # lexists: a dangling symlink is somebody's, too.
    if not overwrite and os.path.lexists(target):
        raise _exists(target)
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if not overwrite:
        # A hard link refuses a name that appeared since the check, which os.replace would silently take over.
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            raise _exists(target) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise _exists(target) from None
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    # The new name itself survives a power cut only once its folder is synced; Windows and some mounts cannot do it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists(target: Path) -> InputError:
    return InputError("a path that does not exist yet", repr(str(target)), "another path, or overwrite=True")
