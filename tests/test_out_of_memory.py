"""Memory that runs out: smaller tiles with the same answer as asking for them, then one clear error."""

import errno
import gc
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps import DDPSRefiner, InputError
from ddps.large import refine_large
from ddps.out_of_memory import (
    SMALLEST_TILE,
    OutOfMemoryError,
    SmallerTilesWarning,
    in_tiles_that_fit,
    is_out_of_memory,
    memory_for,
    smaller,
)
from ddps.outputs import Refinement
from ddps.stacks import refine_masks

from .conftest import make_tiny_refiner
from .test_same_answer import FEATURES, features, same

CPU = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
WINDOWS = (
    "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
)
SAID = (
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.cuda.OutOfMemoryError(),
    RuntimeError(CPU),
    RuntimeError(WINDOWS),
    RuntimeError("std::bad_alloc"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("could not create a primitive"),
    RuntimeError("can't start new thread"),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
)


def scene(height: int = 300, width: int = 280, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = F.interpolate(torch.rand(1, 3, 9, 9, generator=generator), (height, width), mode="bicubic")[0].clamp(0, 1)
    logits = 3 * torch.randn(1, classes, 7, 7, generator=generator)
    return image, F.interpolate(logits, (height // 4, width // 4), mode="bilinear")[0]


class Short:
    """A refiner whose network has no memory for more than so many pixels at a time."""

    def __init__(self, pixels: int, error: Exception = SAID[0], spared: int = 0):
        self.refiner, self.spared = make_tiny_refiner(), spared
        self.asked: list[tuple[int, int]] = []
        assert self.refiner._fast is not None
        network = self.refiner._fast
        denoise = network.denoise

        def short(mask: Tensor, i: int, condition: object) -> object:
            self.asked.append((2 * mask.shape[-2], 2 * mask.shape[-1]))
            if 4 * mask.shape[-2] * mask.shape[-1] > pixels:
                self.spared -= 1
                if self.spared < 0:
                    raise error
            return denoise(mask, i, condition)

        network.denoise = short  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def plenty() -> DDPSRefiner:
    return make_tiny_refiner()


@pytest.mark.parametrize("error", SAID, ids=repr)
def test_what_allocators_say(error):
    assert is_out_of_memory(error)
    with (
        pytest.raises(OutOfMemoryError, match="^expected memory for it; got .+; try less$"),
        memory_for("memory for it", "less"),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), OSError(28, "full")])
def test_what_is_something_else(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, memory_for("memory", "less"):
        raise error
    assert caught.value is error


def test_the_error_is_bad_input_and_a_lack_of_memory():
    error = OutOfMemoryError("memory", "none", "less")
    assert isinstance(error, InputError) and isinstance(error, MemoryError) and is_out_of_memory(error)
    with pytest.raises(OutOfMemoryError) as caught, memory_for("other", "other"):
        raise error
    assert caught.value is error


def test_sides_are_halved_to_multiples_of_the_networks_strides():
    sides, side = [], 1024
    while side is not None:
        sides.append(side)
        side = smaller(side, (4000, 3000))
    assert sides == [1024, 512, 256, 128] and sides[-1] == SMALLEST_TILE
    assert smaller(1024, (200, 500)) == 240 and smaller(1024, (200, 300)) == 144 and smaller(1024, (200, 150)) == 128
    assert smaller(1024, (100, 128)) is None and smaller(64, (4000, 3000)) is None


@pytest.mark.parametrize(
    ("kind", "error"), [("logits", SAID[0]), ("probs", SAID[2]), ("labels", SAID[2])], ids=["logits", "probs", "labels"]
)
def test_the_answer_is_that_of_asking_for_such_tiles(plenty, kind, error):
    image, logits = scene()
    prediction = {"logits": logits, "probs": logits.softmax(0), "labels": logits.argmax(0)}[kind]
    # the failure comes in the second pass of the second attempt: what was done by then must leave no trace
    short = Short(160 * 160, error, spared=1)
    options = {"num_classes": 3, "num_samples": 2, "return_trajectory": True, "after": (1,), "seed": 7}
    with pytest.warns(SmallerTilesWarning, match="with tiles of 300 pixels: refined in tiles of 144"):
        answer = short.refiner.refine(image, prediction, tile=1024, **options)
    expected = plenty.refine(image, prediction, tile=144, **options)
    assert answer.tile == expected.tile == 144 and answer.after[1].tile == 144
    assert same(answer, expected) and same(answer.after[1], expected.after[1])
    assert all(torch.equal(one, other) for one, other in zip(answer.trajectory, expected.trajectory, strict=True))
    assert short.asked[0] == (304, 288) or short.asked[0] == (300, 280)
    assert plenty.refine(image, prediction, tile=1024, num_classes=3).tile == 1024


def test_it_goes_on_down_to_the_smallest(plenty):
    image, logits = scene(540, 560)
    short = Short(128 * 128)
    with pytest.warns(SmallerTilesWarning, match="of 512 pixels: refined in tiles of 128"):
        answer = short.refiner.refine(image, logits, tile=512)
    assert same(answer, plenty.refine(image, logits, tile=128))


def test_a_batch_loses_nothing_but_what_does_not_fit(plenty):
    """Images are refined one by one, so that no batch can be too large."""
    images, predictions = zip(*(scene(*size) for size in ((100, 100), (300, 280), (90, 110))), strict=True)
    short = Short(160 * 160)
    with pytest.warns(SmallerTilesWarning):
        answers = short.refiner.refine(images, predictions, tile=1024)
    assert [answer.tile for answer in answers] == [1024, 144, 1024]
    for answer, image, prediction in zip(answers, images, predictions, strict=True):
        assert same(answer, plenty.refine(image, prediction, tile=answer.tile))


def test_then_there_is_one_clear_error():
    image, logits = scene()
    short = Short(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OutOfMemoryError) as caught:
            short.refiner.refine(image, logits, tile=256)
    said = str(caught.value)
    assert said.startswith("expected memory for 280 x 300 pixels of 3 classes in tiles of 128; got CUDA out of memory")
    assert said.endswith("try ddps.large.refine_large(), which never holds the whole image, or another device")
    assert "\n" not in said and caught.value.__cause__ is None and caught.value.__context__ is None
    # 256, 128: the smallest tiles are tried once
    assert len(short.asked) == 2


def test_a_later_call_is_as_if_nothing_had_been(plenty):
    image, logits = scene()
    short = Short(0)
    with pytest.raises(OutOfMemoryError):
        short.refiner.refine(image, logits)
    short.spared = 10**9
    answer = short.refiner.refine(image, logits)
    assert same(answer, plenty.refine(image, logits)) and answer.tile == 128


def test_what_an_attempt_held_is_gone_before_the_next():
    held: list[weakref.ref[Tensor]] = []
    gone: list[bool] = []

    def run(settings) -> int:
        gone.append(all(one() is None for one in held))
        mine = torch.zeros(1000)
        mine.itself = mine  # only the collector of cycles finds it
        held.append(weakref.ref(mine))
        if settings.tile > 128:
            raise RuntimeError(CPU)
        return settings.overlap

    from ddps.config import InferenceConfig
    from ddps.settings import Settings

    settings = Settings.over(
        InferenceConfig(overlap=96),
        20,
        steps=None,
        sampler=None,
        seed=0,
        num_samples=1,
        guidance_scale=0.0,
        tile=512,
        return_trajectory=False,
        callback=None,
    )
    gc.disable()
    try:
        with pytest.warns(SmallerTilesWarning):
            overlap, used = in_tiles_that_fit(run, settings, (900, 900), 2, "less")
    finally:
        gc.enable()
    assert gone == [True, True, True] and overlap == 32 and (used.tile, used.overlap) == (128, 32)


def test_a_thread_in_which_onednn_makes_nothing_more_is_left(plenty):
    """After one failure it goes on failing there, with memory to spare."""
    image, logits = scene()
    short, here = Short(10**9), threading.get_ident()
    assert short.refiner._fast is not None
    condition = short.refiner._fast.condition

    def poisoned(*arguments: object, **options: object) -> object:
        if threading.get_ident() == here:
            raise RuntimeError("could not create a primitive")
        return condition(*arguments, **options)

    short.refiner._fast.condition = poisoned  # type: ignore[method-assign]
    answer = short.refiner.refine(image, logits, tile=512)
    assert same(answer, plenty.refine(image, logits, tile=512)) and answer.tile == 512
    assert not answer.probs.requires_grad


def test_other_errors_pass():
    short = Short(0, ValueError("another"))
    with pytest.raises(ValueError, match="^another$"):
        short.refiner.refine(*scene())
    assert len(short.asked) == 1


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_large_images_begin_again_in_smaller_tiles(plenty, tmp_path, kind):
    image, logits = scene()
    pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
    prediction = (logits if kind == "logits" else logits.argmax(0)).numpy()
    short = Short(128 * 128, spared=2)
    outputs = {name: tmp_path / f"{name}.npy" for name in ("changed", "uncertainty")}
    with pytest.warns(SmallerTilesWarning):
        summary = refine_large(short.refiner, pixels, prediction, tmp_path / "out.npy", tile=256, **outputs)
    assert summary.tile == 128 and summary.as_dict()["tile"] == 128
    expected = refine_large(plenty, pixels, prediction, tmp_path / "expected.npy", tile=128)
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "expected.npy"))
    assert (summary.tiles, summary.changed, summary.shares) == (expected.tiles, expected.changed, expected.shares)
    assert np.array_equal(np.load(outputs["changed"]) > 0, np.load(tmp_path / "out.npy") != _own(prediction, pixels))


def _own(prediction: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    from ddps.predictions import load_prediction

    return load_prediction(prediction, pixels.shape[:2]).argmax().numpy()


def test_large_images_that_do_not_fit_leave_no_file(tmp_path):
    image, logits = scene()
    with pytest.raises(OutOfMemoryError, match="in tiles of 128; got .*; try a narrower image"):
        refine_large(Short(0).refiner, image.permute(1, 2, 0).numpy(), logits.numpy(), tmp_path / "out.npy")
    assert list(tmp_path.iterdir()) == []


def test_stacks_of_masks(plenty):
    image, logits = scene()
    masks = (logits > 1)[:2]
    with pytest.warns(SmallerTilesWarning):
        short = refine_masks(Short(160 * 160).refiner, image, masks, tile=1024)
    assert short.masks.shape == (2, 300, 280)
    with pytest.raises(OutOfMemoryError):
        refine_masks(Short(0).refiner, image, masks)


def test_models_that_see_images_whole_say_so(monkeypatch):
    paper = make_tiny_refiner(FEATURES)
    image = scene(48, 64)[0]
    assert paper.refine(image, features=features()).tile is None

    def short(*_: object) -> None:
        raise RuntimeError(CPU)

    monkeypatch.setattr(paper.network, "condition", short)
    with pytest.raises(
        OutOfMemoryError, match="^expected memory for an image that this model sees whole; got .enforce"
    ):
        paper.refine(image, features=features())


def test_probabilities_that_do_not_fit_leave_the_labels(plenty, tmp_path):
    image, logits = scene(48, 64)
    answer = plenty.refine(image, logits)

    def short() -> Tensor:
        raise RuntimeError(CPU)

    refined = Refinement(answer.labels, short, answer.uncertainty, answer.changed, answer.palette)
    for use in (lambda: refined.probs, lambda: refined.save(tmp_path / "a.npz")):
        with pytest.raises(OutOfMemoryError, match="all probabilities at image size"):
            use()
    refined.save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


REAL = """
import resource, warnings
import torch
torch.set_num_threads(1)
from ddps.out_of_memory import OutOfMemoryError
from tests.conftest import make_tiny_refiner
from tests.test_out_of_memory import scene
from tests.test_same_answer import same

def in_use():
    pages = int(open("/proc/self/statm").read().split()[0])
    return pages * resource.getpagesize()

refiner = make_tiny_refiner()
refiner.refine(*scene(64, 64))  # libraries and their buffers
hard = resource.getrlimit(resource.RLIMIT_AS)[1]

def limited(mebibytes, image, logits, tile):
    resource.setrlimit(resource.RLIMIT_AS, (in_use() + (mebibytes << 20), hard))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            return refiner.refine(image, logits, tile=tile), [str(one.message) for one in said]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

inputs = scene(640, 640)
answer, said = limited(40, *inputs, 640)
assert answer.tile < 640 and len(said) == 1, (answer.tile, said)
assert same(answer, refiner.refine(*inputs, tile=answer.tile))
inputs = scene(4096, 4096)
try:
    limited(1, *inputs, 640)
except OutOfMemoryError as error:
    print(answer.tile, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS holds on Linux")
def test_an_allocator_that_really_has_no_more(request):
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    tile, said = done.stdout.split(maxsplit=1)
    assert int(tile) in (128, 160, 320) and said.startswith("expected memory for ") and said.count("\n") == 1
