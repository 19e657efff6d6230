"""What training needs where several processes share it: devices, precision, averages over ranks."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..devices import has_native_bfloat16
from ..errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is this rank's GPU, or the CPU.

    Raises:
        InputError: torch knows no such device.
    """
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError("a torch device", repr(name), "cpu or cuda:0") from None


def autocast(amp: str, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where it is native ("auto"), always ("bf16") or never ("off")."""
    enabled = amp == "bf16" or (amp == "auto" and has_native_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def average_gradients(network: nn.Module, world: int) -> None:
    """Gradients become their mean over all ranks."""
    _average([p.grad for p in network.parameters() if p.grad is not None], world)


def average_buffers(modules: Iterable[nn.Module], world: int) -> None:
    """Batch statistics of modules in training mode become their mean over all ranks."""
    layers = [m for module in modules for m in module.modules() if m.training]
    buffers = [b for m in layers for b in m.buffers(recurse=False) if b.is_floating_point()]
    if buffers:
        _average(buffers, world)


def average_value(value: Tensor, world: int) -> float:
    """The mean of a scalar over all ranks."""
    mean = value.detach().clone().reshape(1)
    if world > 1:
        _average([mean], world)
    return float(mean)


def _average(tensors: list[Tensor], world: int) -> None:
    flat: Tensor = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()
