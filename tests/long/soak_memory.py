"""Memory of a process over the work that it does, and its slope."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

WARM_UP = 0.3
"""Share of the work after which memory should have settled: buffers, caches, code made for the sizes that occur."""


def memory_of(process: int) -> int:
    """Resident bytes of a process; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    kibibytes = [line.split()[1] for line in fields.splitlines() if line.startswith("VmRSS:")]
    return 1024 * int(kibibytes[0]) if kibibytes else 0


@dataclass
class Course:
    """What a process held after how many items.

    Attributes:
        items: all that there will be.
        warm_up: share of them after which memory should have settled.
        done, held: items done, and bytes held then.
    """

    items: int
    warm_up: float = WARM_UP
    done: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def add(self, done: int, held: int) -> None:
        if held:
            self.done.append(done)
            self.held.append(held)

    def slope(self) -> float:
        """KiB for every 1000 items after the warm-up, by least squares."""
        settled = [index for index, done in enumerate(self.done) if done >= self.warm_up * self.items]
        assert len(settled) >= 10, f"too few samples to tell: {len(settled)}"
        done, held = np.array(self.done)[settled], np.array(self.held)[settled]
        return float(np.polyfit(done / 1000, held / 1024, 1)[0])

    def __str__(self) -> str:
        tenths = [next((i for i, done in enumerate(self.done) if done >= k * self.items / 10), -1) for k in range(11)]
        course = ", ".join(f"{self.held[index] / 2**20:.0f}" for index in tenths)
        return f"{self.slope():+.1f} KiB per 1000 items, {len(self.done)} samples; MiB at every tenth: {course}"


def needs_proc() -> None:
    """Skips a test where the system does not tell a process's memory."""
    if not memory_of_self():
        pytest.skip("needs /proc, which tells what a process holds")


def memory_of_self() -> int:
    import os

    return memory_of(os.getpid())
