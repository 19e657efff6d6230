"""What torch makes where nothing is said: float32 on the CPU, here, whatever a program has set for itself."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from .errors import InputError


@contextmanager
def plain_defaults() -> Iterator[None]:
    """Tensors are made on the CPU inside, also under `torch.set_default_device`; also a decorator.

    The default device is a thread's own and can be another one for a while. The default type is the whole process's,
    and is left alone.

    Raises:
        InputError: the default type is another than float32, with which answers would be others, or none.
    """
    if torch.get_default_dtype() != torch.float32:
        got = str(torch.get_default_dtype())
        raise InputError(
            "torch's default type torch.float32", got, "torch.set_default_dtype(torch.float32) around ddps"
        )
    with nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu"):
        yield
