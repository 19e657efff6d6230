"""Tens of thousands of bad inputs of every kind: each is refused in one line, or answered whole.

pytest -m long -s tests/long/test_bad_inputs.py

prints how many of each kind there were, how long the slowest took, and how much memory the process grew by. An input on
which the process hangs ends it with a traceback of where.
"""

import faulthandler
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps import array_files, inputs
from ddps.array_files import read_array
from ddps.errors import InputError
from ddps.inputs import load_image

from ..conftest import make_tiny_refiner
from ..whole_models import TINY_WHOLE, whole_refiner
from . import fuzz_arrays, fuzz_commands, fuzz_memory
from .fuzz_memory import Peak
from .fuzz_mutations import bad_bytes
from .fuzz_readers import READERS, accepts, check_refusal, encoded, image_files, npy, npz

pytestmark = [
    pytest.mark.long,
    # libraries warn of what they repair; that is not what is tested here
    pytest.mark.filterwarnings("ignore"),
]

FILES, CALLS, COMMANDS = 1500, 800, 1500
"""Inputs of each kind."""
HANGS = 120
"""Seconds after which an input counts as one that hangs; none needs more than a few on a busy machine."""
MOST_PIXELS = 1 << 24
"""`inputs.MAX_IMAGE_PIXELS` during the run."""
BYTES_PER_PIXEL = 28
"""That an image takes at most while it is read: Pillow's copies, and 12 of the answer."""
MOST_MEMORY = MOST_PIXELS * BYTES_PER_PIXEL + (64 << 20)


@dataclass
class Tally:
    """Kind → (refused, answered) of what has run."""

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    found = Tally()
    yield found
    refused, answered = (sum(counts[which] for counts in found.kinds.values()) for which in (0, 1))
    print(f"\nbad inputs: {refused:,} refused in one line, {answered:,} harmless ones answered, none otherwise")


@pytest.fixture(autouse=True)
def pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_IMAGE_PIXELS", MOST_PIXELS)


def attempt(kind: str, count: int, one: Callable[[int], bool], tally: Tally) -> None:
    """Tries inputs number 0, 1, ... of a kind; `one` says whether an answer came, and raises whatever is a defect."""
    answered, slowest, started = 0, 0.0, time.perf_counter()
    peak = Peak()
    for index in range(count):
        faulthandler.dump_traceback_later(HANGS, exit=True, file=sys.__stderr__)
        start = time.perf_counter()
        try:
            answered += one(index)
        except Exception as error:
            raise AssertionError(f"number {index} of {kind}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.perf_counter() - start)
    tally.kinds[kind] = (count - answered, answered)
    grown = peak.grown()
    print(
        f"\n{kind}: {count - answered} refused, {answered} answered, {time.perf_counter() - started:.1f} s, "
        f"the slowest {slowest:.2f} s, memory +{grown >> 20} MiB",
        end="",
    )
    assert grown < MOST_MEMORY


@pytest.mark.parametrize("kind", READERS)
def test_files(kind: str, tmp_path: Path, tally: Tally) -> None:
    reader = READERS[kind]
    seeds = reader.seeds()
    assert accepts(reader, seeds[0], tmp_path)
    attempt(kind, FILES, lambda index: accepts(reader, bad_bytes(kind, index, seeds), tmp_path), tally)
    assert tally.kinds[kind][0] > FILES // 2  # or what is tried is no bad input


def test_images_cut_at_every_length(tmp_path: Path, tally: Tally) -> None:
    """A cut file is refused, unless nothing of the picture was lost."""
    cuts = [(whole, length) for whole in image_files() for length in range(len(whole))]
    wholes: dict[bytes, object] = {}

    def one(index: int) -> bool:
        whole, length = cuts[index]
        if not accepts(READERS["image"], whole[:length], tmp_path):
            return False
        cut = load_image(tmp_path / "input.png")
        if whole not in wholes:
            (tmp_path / "whole").write_bytes(whole)
            wholes[whole] = load_image(tmp_path / "whole")
        assert cut.equal(wholes[whole]), f"{len(whole)} bytes cut to {length} give another picture"
        return True

    attempt("cut images", len(cuts), one, tally)


@pytest.mark.parametrize("kind", fuzz_arrays.KINDS)
def test_calls(kind: str, tally: Tally) -> None:
    refiner = whole_refiner(replace(TINY_WHOLE, backbone=None)) if kind == "features" else make_tiny_refiner()
    attempt(kind, CALLS, lambda index: fuzz_arrays.accepts(refiner, fuzz_arrays.call(kind, index)), tally)


def test_command_lines(tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, world, scratch = (tmp_path / name for name in ("model", "world", "scratch"))
    make_tiny_refiner().save_pretrained(model)
    fuzz_commands.make_world(world, model)

    def one(index: int) -> bool:
        scratch.mkdir()
        try:
            return fuzz_commands.run(fuzz_commands.command_line(index, world, scratch, model), scratch) == 0
        finally:
            shutil.rmtree(scratch)

    attempt("command lines", COMMANDS, one, tally)


def test_there_were_ten_thousand(tally: Tally) -> None:
    if len(tally.kinds) < len(READERS) + len(fuzz_arrays.KINDS) + 2:
        pytest.skip("only some of the kinds have run")
    assert sum(refused for refused, _ in tally.kinds.values()) >= 10_000


def test_memory_of_an_image_is_bounded() -> None:
    script = Path(fuzz_memory.__file__)
    output = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True).stdout
    print(f"\nbytes per pixel while an image is read: {output}")
    assert max(json.loads(output).values()) < BYTES_PER_PIXEL


def test_bombs_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that unpack to hundreds of times the limit: nothing is unpacked."""
    monkeypatch.setattr(array_files, "MAX_VALUES", 1 << 20)
    zeros = np.zeros(1 << 28, np.uint8)
    large = Image.new("L", (5000, 5000))
    files = {
        "array.npz": npz({"logits.npy": npy(zeros.reshape(1, 1 << 14, 1 << 14))}),
        "raw.npz": npz({"logits": zeros.tobytes()}),
        "header.npz": npz({"logits.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x0f" + zeros.tobytes()}),
        **{f"a.{suffix}": encoded(large, suffix.upper()) for suffix in ("png", "gif", "tiff")},
    }
    del zeros, large
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    peak = Peak()
    for name, data in files.items():
        with warnings.catch_warnings(), pytest.raises(InputError, match="at most|too long") as caught:
            read_array(tmp_path / name, ["logits"]) if name.endswith("npz") else load_image(tmp_path / name)
        check_refusal(caught.value)
        print(f"\n{name}: {len(data):,} bytes; {str(caught.value)[:110]}", end="")
    assert peak.grown() < 16 << 20
