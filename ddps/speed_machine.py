"""What a timing is worth: the machine it was taken on, its matrix products per second, its memory, and the spread."""

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
Run = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Seconds of one thing, measured several times: median, shortest, longest."""

    median: float
    shortest: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        return cls(statistics.median(seconds), min(seconds), max(seconds))


def interleaved(runs: Mapping[str, Run], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Times everything in turn, again and again, so that whatever else the machine does meets all of them alike.

    Args:
        runs: name → what is timed; warm already.
        repeats: rounds; every other one goes backwards.
        device: that is waited for before and after each.

    Returns:
        Name → seconds, one number per round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            _wait(device)
            start = time.perf_counter()
            runs[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def count_flops(run: Run) -> int:
    """Floating-point operations of a run, two per multiply-add, as `torch.utils.flop_counter` counts them.

    It counts convolutions, matrix products and attention; normalisations, softmax and noise count for nothing.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def matmul(device: torch.device, dtype: torch.dtype) -> tuple[Run, int]:
    """A square matrix product for `interleaved`, what the hardware does at its best, and its operations.

    float32 convolutions on CUDA may be allowed TF32, which this product is not unless torch is told so.
    """
    side = MATMUL_SIDE.get(device.type, MATMUL_SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3


def peak_memory(make: Callable[..., Run], arguments: Sequence[object], device: torch.device) -> int | None:
    """The most memory that a run held at once, beyond what was there before it: weights and inputs do not count.

    On CUDA `torch.cuda.max_memory_allocated` less what was allocated before. On the CPU the run happens once in a fresh
    process, and the answer is by how much the high-water mark of its resident memory rose above what was resident
    before: VmHWM on Linux, elsewhere `ru_maxrss`. (On Linux a new process inherits its parent's `ru_maxrss`.)

    Args:
        make: a function of a module, since a fresh process has to import it; `make(*arguments)` gives the run.
        arguments: that can be pickled.
        device: where the run happens.

    Returns:
        Bytes; None on other devices, and on systems that do not tell.
    """
    if device.type == "cuda":
        run = make(*arguments)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_rise_of_resident, make, tuple(arguments), torch.get_num_threads()).result()


def machine(device: torch.device) -> dict[str, object]:
    """What the figures depend on: processor, threads, device, versions, and the load at the start."""
    cuda = device.type == "cuda"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32 if cuda else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _rise_of_resident(make: Callable[..., Run], arguments: Sequence[object], threads: int) -> int | None:
    torch.set_num_threads(threads)
    run = make(*arguments)
    before = _resident("VmRSS")
    run()
    after = _resident("VmHWM")
    return None if before is None or after is None else max(0, after - before)


def _resident(entry: str) -> int | None:
    """Bytes of an entry of Linux's status of this process; elsewhere of `ru_maxrss`."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line.split() for line in status.read_text().splitlines()]
        return next((int(words[1]) * 1024 for words in lines if words and words[0] == f"{entry}:"), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
