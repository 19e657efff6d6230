"""Memory that a process gives back and asks for again, many times a second."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 << 20


def keep_memory() -> bool:
    """Lets the whole process keep the memory that it frees, for its next tensors.

    On Linux, glibc hands large blocks back to the system as soon as they are free. Their pages have to be cleared when
    they come again, which takes a quarter of the time of `refine` on a CPU. The commands of `ddps` call this, but for
    `app`, whose threads would keep memory each; in a program of your own it is your choice, since it holds for
    everything in the process: its resident memory stays at its highest. Best called first.

    Returns:
        Whether it was done: False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, TOP_PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)
