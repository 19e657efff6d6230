"""What is done when memory runs out: smaller tiles, then one clear error. Never half an answer."""

import errno
import gc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from .errors import InputError, one_line
from .settings import Settings
from .tiling import UNIT

Made = TypeVar("Made")

# Smaller tiles than these save little and show the network too little at a time.
SMALLEST_TILE = 128
# How allocators say it where they raise no type of their own: the CPU's in torch, C++, CUDA's libraries, Apple's.
_MARKS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",
    "bad allocation",
    "could not create a ",  # oneDNN, of a primitive or a memory object
    "could not execute a primitive",
    "start new thread",  # whose stack finds no room
)


class OutOfMemoryError(InputError, MemoryError):
    """Memory ran out, said in one line; caught as `InputError` and as `MemoryError` alike."""


class SmallerTilesWarning(RuntimeWarning):
    """Memory ran out, so that an image was refined in smaller tiles than asked for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory has run out, on whatever device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _MARKS)


@contextmanager
def memory_for(what: str, hint: str) -> Iterator[None]:
    """Says in one line that memory ran out inside; also a decorator.

    Args:
        what: what it was needed for, as in "memory for 19 classes of 3840 x 2160 pixels".
        hint: what to do about it.

    Raises:
        OutOfMemoryError: as said, in place of whatever the allocator raised.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # what its traceback holds is memory, too
        error.__traceback__ = None
        raise OutOfMemoryError(what, _said(error), hint) from None


def in_tiles_that_fit(
    run: Callable[[Settings], Made], settings: Settings, size: tuple[int, int], classes: int, hint: str
) -> tuple[Made, Settings]:
    """Runs with the tiles that were asked for, and with smaller ones where memory runs out.

    A run that failed leaves nothing: the next one begins anew, with the noise of its own tiles, and so gives bit for
    bit what asking for tiles of that size would have given. Sides are halved, down to `SMALLEST_TILE`.

    Args:
        run: one attempt, which keeps nothing of an earlier one.
        settings: of the call.
        size: (H, W) of the image.
        classes: K.
        hint: what to do when no size fits.

    Returns:
        What `run` gave, and the settings that it was given.

    Raises:
        OutOfMemoryError: there was not even memory for the smallest tiles.
    """
    asked, attempt = settings, run
    while True:
        try:
            made = attempt(settings)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            got = _said(error)
        else:
            break
        # past the handler, which would keep all that the attempt held
        release()
        if "could not create a" in got and attempt is run:
            attempt = partial(_in_new_thread, run)
            continue
        side = smaller(settings.tile, size)
        if side is None:
            height, width = size
            least = min(settings.tile, max(size))
            what = f"memory for {width} x {height} pixels of {classes} classes in tiles of {least}"
            raise OutOfMemoryError(what, got, hint)
        settings = replace(settings, tile=side, overlap=min(settings.overlap, side // 4))
    if settings is not asked:
        text = f"memory ran out with tiles of {min(asked.tile, max(size))} pixels: refined in tiles of {settings.tile}"
        warnings.warn(SmallerTilesWarning(text), stacklevel=2)
    return made, settings


def _in_new_thread(run: Callable[[Settings], Made], settings: Settings) -> Made:
    """What `run` gives, whatever has become of this thread.

    In a thread in which oneDNN found no memory for code once, it makes no more of it, however much there is later on.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.no_grad()(run), settings).result()


def smaller(tile: int, size: tuple[int, int]) -> int | None:
    """The next smaller side of tiles; None where there is none.

    Args:
        tile: side that did not fit.
        size: (H, W) of the image; tiles are never larger.
    """
    side = min(tile, max(size))
    if side <= SMALLEST_TILE:
        return None
    return max(SMALLEST_TILE, side // 2 // UNIT * UNIT)


def release() -> None:
    """Gives back what nobody uses any more, to Python and to the device."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _said(error: Exception) -> str:
    return one_line(error)[:100]
