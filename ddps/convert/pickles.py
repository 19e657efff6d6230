"""Opening a stranger's `.pth` file: nothing in it runs, and whatever else it is, is said in one line.

This is the only place where ddps reads a pickle.
"""

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, one_line
from ..inputs import check_file
from ..tensor_file import LFS_POINTER

AGAIN = "downloading it again"
HEAD_BYTES = 512
# Before 2.6, torch.load(weights_only=True) could be made to run code (CVE-2025-32434).
SAFE_TORCH = (2, 6)


class Stub:
    """Stands for a numpy object in a checkpoint's notes (a score, a count): kept as what it was made of, never made.

    A pickle names numpy's functions and passes them arguments of its own choice. None of them is needed here, so none
    of them is called.
    """

    def __init__(self, *parts: object):
        self.parts = parts

    def __setstate__(self, state: object) -> None:
        """Ignored: the state of what is never made."""


NUMPY_NAMES = (
    "numpy.dtype",
    "numpy.ndarray",
    # numpy 1, and 2
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    *(f"numpy.{kind}" for kind in ("bool_", "int32", "int64", "float32", "float64")),
    *(
        f"numpy.dtypes.{kind}DType"
        for kind in ("Bool", "UInt8", "Int32", "Int64", "Float16", "Float32", "Float64", "Str", "Bytes")
    ),
)
"""The whole list of globals that a checkpoint may name beside torch's own tensors and Python's containers."""


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """Opens a checkpoint with `torch.load(weights_only=True)`, which runs nothing of it.

    Args:
        path: a file that torch.save wrote, as zip archive or in the older format.

    Returns:
        The dictionary that it holds; tensors of an archive stay on disk until they are used.

    Raises:
        InputError: no such file, text or a git-lfs pointer in its place, cut short, damaged, no dictionary, or a
            pickle that names anything but tensors and the numpy types of `NUMPY_NAMES`.
    """
    check_file(path, "a checkpoint file")
    wanted = f"{path.name!r} as a checkpoint that torch saved"
    _refuse_text(path, wanted)
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise InputError("torch 2.6 or newer, which opens pickles safely", torch.__version__, "pip install -U torch")
    archive = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not archive and file.read(2) == b"PK":
            raise InputError(wanted, "a file that was cut short", AGAIN)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Stub, name) for name in NUMPY_NAMES]):
            # torch warns of unusual files before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # what a damaged or hostile file makes torch raise is nearly anything
        raise InputError(wanted, *_explain(error)) from None
    if not isinstance(content, dict):
        raise InputError(wanted, f"a pickled {type(content).__name__}", "a checkpoint with a state_dict")
    return content


def _refuse_text(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(LFS_POINTER):
        raise InputError(wanted, "a git-lfs pointer to it", "'git lfs pull' in that repository, or downloading it")
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return
    if all(character.isprintable() or character.isspace() for character in text):
        size = path.stat().st_size
        said = " ".join(text.split())[:60]
        raise InputError(
            wanted, f"a text file of {size} bytes that begins with {said!r}", "the file that it stands for"
        )


def _explain(error: Exception) -> tuple[str, str]:
    said = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if named:
        return f"a pickle that wants to run {named[1][:80]}", "a file of an origin that you trust; this one was not run"
    if re.search(r"Unsupported|unrecognized|Can only|blocked|persistent", said, re.IGNORECASE):
        return "a pickle that holds more than weights", "a file of an origin that you trust; this one was not run"
    if isinstance(error, EOFError) or "central directory" in said or "Ran out of" in said:
        return "a file that was cut short", AGAIN
    # torch adds advice on how to open it unsafely, which must not reach anybody.
    reason = one_line(error).split("This file can still")[0].split("In PyTorch 2.6")[0].strip(" .(")
    return f"something else ({reason[:120]})", f"{AGAIN}, or another file"
