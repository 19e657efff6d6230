"""Files are written whole or not at all: a crash or a full disk never leaves half a file under its real name.

A process that is killed while it writes leaves its temporary file behind, `.NAME.TWELVE HEX DIGITS.tmp`. No reader of
ddps looks at these; `remove_leftovers` takes them away when the work goes on.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

# Windows has none, and neither renames nor removes a file that somebody has open.
LOCKS = find_spec("fcntl") is not None
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)


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
        OSError: a full disk, a folder that takes no files; `path` is named in it.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError("a path in an existing folder", repr(str(target)), f"creating {str(target.parent)!r} first")
    if target.is_dir():
        raise InputError("the path of a file", f"the folder {str(target)!r}", "adding a file name to it")
    # lexists: a dangling symlink is somebody's, too.
    if not overwrite and os.path.lexists(target):
        raise _exists(target)
    temporary, file = _create(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if LOCKS:  # which end when the file is closed
                _publish(temporary, target, overwrite)
        if not LOCKS:
            _publish(temporary, target, overwrite)
    except OSError as error:
        raise _named(error, temporary, target) from error
    finally:
        # What ended the block is what counts, on a disk that is gone as well.
        with suppress(OSError):
            os.unlink(temporary)
    _sync_folder(target.parent)


def remove_leftovers(*folders: str | os.PathLike[str], of: str = "") -> int:
    """Removes what killed processes have left in folders; what somebody is writing at this moment stays.

    Without file locks, as on Windows and on some network drives, nothing is removed.

    Args:
        folders: those that are not there are passed over.
        of: only those of the file of this name.

    Returns:
        How many files were removed.
    """
    return sum(_remove_unless_locked(path) for folder in folders for path in leftovers(folder, of))


def leftovers(folder: str | os.PathLike[str], of: str = "") -> list[str]:
    """Paths of temporary files in a folder, of dead processes and of those that are writing now; see above."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            ours = _TEMPORARY.fullmatch(entry.name) and (not of or entry.name[:-17] == f".{of[:40]}")
            if ours and entry.is_file(follow_symlinks=False):
                found.append(entry.path)
    return found


def _remove_unless_locked(path: str) -> bool:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if _lock(descriptor):
                os.unlink(path)
                return True
        finally:
            os.close(descriptor)
    return False


def _lock(descriptor: int, wait: bool = False) -> bool:
    """Whether this open file now has the only lock on the file, which ends when it is closed or its process dies."""
    if not LOCKS:
        return False
    import fcntl

    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


def _create(target: Path) -> tuple[str, BinaryIO]:
    """A temporary file beside `target`, locked where files can be.

    Its path is a string: Python interns every part of a `Path`, and its table of them grows with every name, also of
    those that nobody sees again.
    """
    while True:
        temporary = os.path.join(target.parent, f".{target.name[:40]}.{secrets.token_hex(6)}.tmp")
        try:
            file = open(temporary, "xb")  # noqa: SIM115
        except OSError as error:
            raise _named(error, temporary, target) from error
        # Between these two lines `remove_leftovers` may take it for a dead process's.
        if not _lock(file.fileno(), wait=True) or os.path.lexists(temporary):
            return temporary, file
        file.close()


def _named(error: OSError, temporary: str, target: Path) -> OSError:
    """The error with the name that the user knows; a write that fails names no file at all."""
    if error.errno is None or error.filename not in (None, temporary):
        return error
    return OSError(error.errno, error.strerror, str(target))


def _publish(temporary: str, target: Path, overwrite: bool) -> None:
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
