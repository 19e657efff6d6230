"""The processes of one run under torchrun: how they meet, who takes what, and what comes together in the first one.

Work is dealt out by the order of its items, so that nothing has to be said between the processes while they work. If
one of them dies, torchrun ends the others.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from .errors import InputError

T = TypeVar("T")
Items = TypeVar("Items", bound=Sequence[Any])
BAD_INPUT = 2
# One process may validate, or refine its last large image, for hours while the others wait.
PATIENCE = timedelta(days=7)


def join_processes(backend: str | None = None) -> int:
    """Joins the group that torchrun describes, if any, and returns its size.

    Args:
        backend: of torch.distributed; None for NCCL where there is CUDA, else gloo.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"), timeout=PATIENCE)
    return world


def is_first() -> bool:
    """Whether this process speaks for all of them; true outside of torchrun."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Group:
    """The processes of a run; without torchrun there is one, which does everything itself.

    Attributes:
        rank: of this process, 0 to world - 1.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.rank == 0

    def share(self, items: Items) -> Items:
        """This process's part of what all of them list in the same order: every world-th item."""
        return cast(Items, items[self.rank :: self.world])

    def device(self, name: str | None) -> str | None:
        """The device of a name; None is this process's own GPU where several processes share a machine with CUDA."""
        if name is None and self.world > 1 and torch.cuda.is_available():
            return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
        return name

    def first(self, work: Callable[[], T]) -> T:
        """What the first process makes of some work, in all of them.

        Raises:
            InputError, OSError: in the first process, whose error it is; the others exit with the code of bad input and
                say nothing.
        """
        if self.world == 1:
            return work()
        box: list[tuple[bool, T | None]] = [(False, None)]
        try:
            if self.leads:
                box[0] = True, work()
        finally:
            dist.broadcast_object_list(box)
        done, value = box[0]
        if not done:
            raise SystemExit(BAD_INPUT)
        return value  # type: ignore[return-value]

    def one_then_all(self, work: Callable[[], T]) -> T:
        """The same work in every process, first in the first one: it says what is wrong, and fills the caches.

        Raises:
            InputError, OSError: as for `first`.
        """
        mine: list[T] = []
        self.first(lambda: mine.append(work()))
        return mine[0] if self.leads else work()

    def gather(self, value: T) -> list[T]:
        """What every process has, by rank, in the first one; an empty list in the others."""
        if self.world == 1:
            return [value]
        box: list[T | None] | None = [None] * self.world if self.leads else None
        dist.gather_object(value, box)
        return [] if box is None else box  # type: ignore[return-value]


@contextmanager
def processes() -> Iterator[Group]:
    """The group of torchrun's processes, for work that needs to agree on little; they talk through gloo.

    Raises:
        InputError: they do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    try:
        world = join_processes("gloo")
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError("the processes that torchrun starts", reason, "torchrun --nproc-per-node N -m ddps") from None
    try:
        yield Group(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
