"""A safetensors file that holds exactly the tensors of one model, read without trust and never unpickled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

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


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads a safetensors file that must hold exactly the expected tensors.

    Args:
        path: the file.
        expected: name → tensor (any device, also meta) of the wanted shape and dtype. A floating tensor may be stored
            as any of float16, bfloat16, float32 and float64; others only in their own dtype.

    Returns:
        name → tensor with the expected shape and dtype, on the CPU.

    Raises:
        InputError: no such file; no safetensors; tensors that are missing, unexpected, of another shape or dtype, or
            not finite.
    """
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in PICKLES)
        got = f"only {_some(pickles)}, which is never unpickled" if pickles else "no such file"
        raise InputError(str(path), got, "a folder that ddps saved")
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(f"{path} as safetensors", "a git-lfs pointer", "'git lfs pull' in that repository")
    try:
        with safe_open(str(path), framework="pt") as file:
            _check_header(path, file, expected)
            # Copies: the file may be replaced or cut short while the model lives, and a memory map would follow it.
            tensors = {name: file.get_tensor(name).to(like.dtype, copy=True) for name, like in expected.items()}
    except SafetensorError as error:
        raise InputError(f"{path} as safetensors", one_line(error), "downloading or saving the model again") from error
    refuse_non_finite(tensors, str(path))
    return tensors


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], *, half: bool = False) -> None:
    """Writes tensors of any device to an open file.

    Args:
        file: binary file, empty. `safetensors.torch.save_file` would put a file of its own, which nobody syncs and only
            its owner may read, in the place of this one.
        tensors: name → tensor.
        half: store floating tensors as float16.

    Raises:
        InputError: a value is not finite (in float16, with `half`).
    """
    stored = {name: _storable(tensor, half) for name, tensor in tensors.items()}
    refuse_non_finite(stored, "float16 weights" if half else "weights")
    file.write(save(stored, metadata={"format": "pt"}))


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


def _storable(tensor: Tensor, half: bool) -> Tensor:
    dtype = torch.float16 if half and tensor.is_floating_point() else tensor.dtype
    # A copy each: safetensors refuses tensors that share memory.
    return tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)


def refuse_non_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises InputError where a weight is NaN or infinite; tables of logarithms may hold -inf."""
    bad = [name for name, tensor in tensors.items() if not _all_finite(name, tensor)]
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
