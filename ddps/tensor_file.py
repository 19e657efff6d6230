"""A safetensors file that holds exactly the tensors of one model, read without trust and never unpickled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import unique
from .errors import InputError, one_line

FLOATS = {"F16", "BF16", "F32", "F64"}
INTEGERS = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
PICKLES = {".bin", ".pth", ".pt", ".ckpt", ".pkl"}
LFS_POINTER = b"version https://git-lfs"
HEADER_BYTES, HEADER_BYTES_PER_TENSOR = 2**16, 512
"""Longest header: notes, and for each tensor its name, dtype, shape and place, which take about 100 bytes."""


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads a safetensors file that must hold exactly the expected tensors.

    Args:
        path: the file.
        expected: name → tensor (any device, also meta) of the wanted shape and dtype. A floating tensor may be stored
            as any of float16, bfloat16, float32 and float64; others only in their own dtype.

    Returns:
        name → tensor with the expected shape and dtype, on the CPU.

    Raises:
        InputError: no such file; no safetensors; a header that is longer than the tensors need, or names one twice;
            tensors that are missing, unexpected, of another shape or dtype, or not finite.
    """
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in PICKLES)
        got = f"only {_some(pickles)}, which is never unpickled" if pickles else "no such file"
        raise InputError(str(path), got, "a folder that ddps saved")
    _check_header_text(path, len(expected))
    try:
        with safe_open(str(path), framework="pt") as file:
            _check_header(path, file, expected)
            # Copies: the file may be replaced or cut short while the model lives, and a memory map would follow it.
            tensors = {name: file.get_tensor(name).to(like.dtype, copy=True) for name, like in expected.items()}
    except SafetensorError as error:
        raise InputError(f"{path} as safetensors", one_line(error), "downloading or saving the model again") from error
    refuse_non_finite(tensors, str(path))
    return tensors


def read_notes(path: Path) -> dict[str, str]:
    """What `write_tensors` noted in a file that `read_tensors` has read."""
    with safe_open(str(path), framework="pt") as file:
        return file.metadata() or {}


def write_tensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], *, half: bool = False, notes: Mapping[str, str] | None = None
) -> None:
    """Writes tensors of any device to an open file.

    Args:
        file: binary file, empty. `safetensors.torch.save_file` would put a file of its own, which nobody syncs and only
            its owner may read, in the place of this one.
        tensors: name → tensor.
        half: store floating tensors as float16.
        notes: texts to keep with them.

    Raises:
        InputError: a value is not finite (in float16, with `half`).
    """
    bad = [name for name, tensor in tensors.items() if not _all_finite(name, tensor.to(_stored_dtype(tensor, half)))]
    _refuse(bad, "float16 weights" if half else "weights")
    stream_tensors(file, tensors, half=half, notes=notes)


def stream_tensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], *, half: bool = False, notes: Mapping[str, str] | None = None
) -> None:
    """`write_tensors` of whatever values.

    The bytes are the library's, which would copy all tensors twice; here no more than one is copied at a time.
    """
    empty = {name: torch.empty(0, dtype=_stored_dtype(tensor, half)) for name, tensor in tensors.items()}
    # The library would write several notes in an order of its own, another in every process.
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(notes or {})}}
    order, end = json.loads(bytes(_split(save(empty))[0])), 0
    for name, entry in order.items():
        begin, end = end, end + tensors[name].numel() * empty[name].element_size()
        header[name] = {"dtype": entry["dtype"], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        tensor = tensors[name].detach().to("cpu", empty[name].dtype).contiguous()
        file.write(_split(save({name: tensor}))[1])


def _split(data: bytes) -> tuple[memoryview, memoryview]:
    """Header and values."""
    view, start = memoryview(data), 8 + int.from_bytes(data[:8], "little")
    return view[8:start], view[start:]


def _stored_dtype(tensor: Tensor, half: bool) -> torch.dtype:
    return torch.float16 if half and tensor.is_floating_point() else tensor.dtype


def _check_header_text(path: Path, count: int) -> None:
    """What has to be known before the library reads a header: it takes 20 seconds and a gigabyte for a hostile one of
    90 MiB, and of two tensors of one name the last.
    """
    wanted, again = f"{path} as safetensors", "downloading or saving the model again"
    with path.open("rb") as stream:
        start = stream.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise InputError(wanted, "a git-lfs pointer", "'git lfs pull' in that repository")
        length, size = int.from_bytes(start[:8], "little"), path.stat().st_size
        if len(start) < 8 or length > size - 8:
            raise InputError(wanted, f"a file of {size} bytes that was cut short, or is something else", again)
        most = HEADER_BYTES + HEADER_BYTES_PER_TENSOR * count
        if length > most:
            raise InputError(f"{wanted} with a header of up to {most} bytes", f"{length} bytes", again)
        stream.seek(8)
        header = stream.read(length)
    try:
        json.loads(header, object_pairs_hook=unique)
    except InputError as error:
        raise InputError(f"{wanted} that names every tensor once", error.got, again) from None
    except (ValueError, RecursionError) as error:
        raise InputError(wanted, one_line(error), again) from None


def _check_header(path: Path, file: safe_open, expected: Mapping[str, Tensor]) -> None:
    found = set(file.keys())
    shapes, dtypes = [], []
    for name in sorted(found & expected.keys()):
        entry, like = file.get_slice(name), expected[name]
        if tuple(entry.get_shape()) != tuple(like.shape):
            shapes.append(f"{name} {tuple(entry.get_shape())} instead of {tuple(like.shape)}")
        elif not _fits(entry.get_dtype(), like.dtype):
            dtypes.append(f"{name} {entry.get_dtype()} instead of {str(like.dtype).removeprefix('torch.')}")
    problems = {
        "missing": sorted(expected.keys() - found),
        "unexpected": sorted(found - expected.keys()),
        "mis-shaped": shapes,
        "of another dtype": dtypes,
    }
    got = ", ".join(f"{kind} {_some(names)}" for kind, names in problems.items() if names)
    if got:
        wanted = f"{path} with the {len(expected)} tensors of its config's network"
        raise InputError(wanted, got, "the weights saved with that config")


def _fits(stored: str, dtype: torch.dtype) -> bool:
    # Only floats may be stored in another width.
    return stored in FLOATS if dtype.is_floating_point else INTEGERS.get(stored) == dtype


def refuse_non_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises InputError where a weight is NaN or infinite; tables of logarithms may hold -inf."""
    _refuse([name for name, tensor in tensors.items() if not _all_finite(name, tensor)], where)


def _refuse(bad: Sequence[str], where: str) -> None:
    if bad:
        raise InputError(f"finite numbers in {where}", f"NaN or infinity in {_some(bad)}", "an earlier checkpoint")


def _all_finite(name: str, tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    finite = torch.isfinite(tensor)
    if name.rpartition(".")[2].startswith("log_"):
        # The paper's network keeps its schedule as tables of logarithms, where -inf is a probability of zero.
        finite |= torch.isneginf(tensor)
    return bool(finite.all())


def _some(names: Sequence[str], shown: int = 3) -> str:
    # repr and a cut: the names may be a stranger's.
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(repr(name[:120]) for name in names[:shown]) + more
