"""Images too large for memory, such as aerial photos and slides: refined tile by tile, from file to file."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .canvas import WINDOW
from .context import context_of
from .defaults import plain_defaults
from .errors import InputError
from .large_canvas import LargeCanvas, Spool, parts
from .large_outputs import RowWriter, check_output, open_output
from .large_prediction import StreamedPrediction, load_streamed
from .large_sources import ImageWindows, open_large_image
from .models.slot_unet import SlotUNet
from .out_of_memory import in_tiles_that_fit, memory_for
from .predictions import AnyKind
from .progress import Progress
from .refiner import SURE, DDPSRefiner
from .settings import Preset, Settings
from .tile_chain import TileChain
from .tiling import Tile, plan_tiles, plan_turns, split
from .visualize import default_palette

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class LargeSummary:
    """What became of a large image.

    Attributes:
        size: (H, W) in pixels.
        num_classes: K.
        tiles: that the image was cut into.
        tile: their side in pixels, less than asked for where memory ran out.
        skipped: share of the tiles in which there was nothing to refine, in percent.
        changed: share of the pixels that differ from the segmentor's own answer, in percent.
        shares: of every class among the labelled pixels of the answer, in percent.
        seconds: all in all.
        peak_memory: most bytes that the process has held so far, other work included; None where that is not known.
    """

    size: tuple[int, int]
    num_classes: int
    tiles: int
    tile: int
    skipped: float
    changed: float
    shares: tuple[float, ...]
    seconds: float
    peak_memory: int | None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


# as in DDPSRefiner.refine
@plain_defaults()
@memory_for("memory for one row of tiles of the image", "a narrower image, fewer classes, or labels in place of logits")
@torch.no_grad()
def refine_large(
    refiner: DDPSRefiner,
    image: PathLike | np.ndarray,
    prediction: PathLike | np.ndarray,
    out: PathLike,
    *,
    changed: PathLike | None = None,
    uncertainty: PathLike | None = None,
    kind: AnyKind = "auto",
    preset: Preset = "default",
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    num_samples: int = 1,
    guidance_scale: float = 0.0,
    early_exit: float = 0.0,
    tile: int | None = None,
    ignore_index: int = 255,
    num_classes: int | None = None,
    confident: float = SURE,
    overwrite: bool = False,
    progress: bool = False,
) -> LargeSummary:
    """Refines one prediction of an image of any size, from file to file; the answer is that of `DDPSRefiner.refine`.

    In memory are one row of tiles, as (S, tile, tile) slots in half precision, and one band of the outputs. Label maps
    are gone through twice: how far their outlines are trusted is known at the end of the first time, until which the
    refined tiles wait in a temporary file beside `out`.

    Args:
        refiner: the universal one, or another that is conditioned on a prediction.
        image: .npy (H, W, 3) or (H, W), uint8 or float in [0, 1]; tiled or striped TIFF; such an array, as of
            np.memmap; or a file of at most `large_sources.PILLOW_PIXELS` pixels that Pillow reads.
        prediction: .npy file or array of (K, h, w) logits or probabilities at any resolution, K = 1 meaning a sigmoid
            foreground; or an (h, w) label map, also as a TIFF of one channel or a .png of moderate size.
        out: labels, .tif (512 x 512 tiles, deflate, with a palette) or .npy; uint8 up to 255 classes, else uint16.
        changed: where to write what changed as uint8, 255 where it did; .tif or .npy.
        uncertainty: where to write the uncertainty as uint8, 255 meaning 1; .tif or .npy.
        kind, preset, steps, sampler, seed, num_samples, guidance_scale, early_exit, tile, ignore_index, num_classes,
            progress: as for `DDPSRefiner.refine`. Void stays void; outputs whose type cannot hold `ignore_index` hold
            their largest number there.
        confident: a tile is left as it is where all of its pixels show one class with this probability or more, in
            [0.5, 1]. Below the default, what the refiner would have found in such tiles is lost, and time is won. A
            tile of a label map that shows one class is never run: it could not get another.
        overwrite: whether files that are there may be replaced.

    Returns:
        Shares, time and memory.

    Raises:
        InputError: any input that does not fit, in one line; before any output exists under its name.
        OutOfMemoryError: an InputError, too; smaller tiles have been tried, each time from the start.
    """
    started = time.perf_counter()
    network = refiner.network
    if not isinstance(network, SlotUNet):
        hint = "the universal weights, or refine() for an image that fits into memory"
        raise InputError("weights that refine a prediction", "a model conditioned on features", hint)
    if not 0.5 <= confident <= 1:
        raise InputError("confident from 0.5 to 1", repr(confident)[:60], f"{SURE}, the default")
    settings = Settings.over(
        refiner.config.inference,
        refiner.schedule.num_steps,
        steps=steps,
        sampler=sampler,
        seed=seed,
        num_samples=num_samples,
        guidance_scale=guidance_scale,
        early_exit=early_exit,
        tile=tile,
        return_trajectory=False,
        callback=None,
        preset=preset,
    )
    _check_paths([image, prediction], [out, changed, uncertainty])
    pixels = open_large_image(image)
    judge = partial(refiner._load, size=pixels.size, kind=kind, ignore_index=ignore_index, classes=num_classes)
    known = load_streamed(prediction, pixels.size, judge)

    def run(settings: Settings) -> tuple[_Job, _Tally]:
        job = _Job(refiner, pixels, known, settings, confident, progress)
        with ExitStack() as files:
            writers = {}
            byte = np.dtype(np.uint8)
            small = label_type(known.num_classes) == byte
            palette = refiner.config.labels.palette or default_palette(known.num_classes) if small else ()
            for what, path, dtype, colours in (
                ("labels", out, label_type(known.num_classes), palette),
                ("changed", changed, byte, ()),
                ("uncertainty", uncertainty, byte, ()),
            ):
                if path is not None:
                    writers[what] = files.enter_context(open_output(path, known.size, dtype, colours, overwrite))
            tally = _Tally(known, writers)
            for part in job.run(Path(out).parent):
                tally.add(part, job.canvas)
        return job, tally

    hint = "a narrower image, fewer classes, labels in place of logits, or another device"
    (job, tally), settings = in_tiles_that_fit(run, settings, known.size, known.num_classes, hint)
    labelled = max(1, int(tally.counts.sum()))
    return LargeSummary(
        size=known.size,
        num_classes=known.num_classes,
        tiles=len(job.turns),
        tile=settings.tile,
        skipped=100 * job.skipped / len(job.turns),
        changed=100 * tally.changed / (known.size[0] * known.size[1]),
        shares=tuple((100 * tally.counts / labelled).tolist()),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )


class _Job:
    """The tiles of one call, and the canvas that they are painted on."""

    def __init__(
        self,
        refiner: DDPSRefiner,
        pixels: ImageWindows,
        known: StreamedPrediction,
        settings: Settings,
        confident: float,
        progress: bool,
    ):
        self.refiner, self.pixels, self.known, self.settings = refiner, pixels, known, settings
        self.confident, self.skipped = confident, 0
        self.turns = plan_turns(known.size, plan_tiles(known.size, settings.tile, settings.overlap))
        mix = settings.label_mix if known.kind == "labels" else settings.mix
        self.canvas = LargeCanvas(known, settings.overlap, mix, refiner.hedge(known))
        assert refiner._fast is not None  # as every SlotUNet has
        self.chain = TileChain(refiner._fast, refiner.schedule, refiner.config.schedule, settings, refiner.dtype)
        self.context = context_of(self.pixels, known, self.chain)
        self.bar = Progress(len(self.turns), "tiles", progress)

    def run(self, folder: Path) -> Iterator[Tile]:
        """Parts of the image for which the canvas has the final answer, until the next one is asked for."""
        if self.known.kind != "labels":
            yield from parts(self.canvas, self.turns, self.refine)
            return
        with Spool(folder) as spool:
            for part in parts(self.canvas, self.turns, partial(self.refine, spool=spool)):
                self.canvas.count(part)
            self.canvas.trust_exact_labels()
            yield from parts(self.canvas, self.turns, partial(spool.give_back, self.canvas))

    def refine(self, tile: Tile, spool: Spool | None = None) -> None:
        """Adds a tile's answer to the canvas, if there is anything to refine in it."""
        before = len(self.canvas.pieces)
        if self.known.kind == "labels":
            self._run(tile)
            self.skipped += len(self.canvas.pieces) > before and len(self.canvas.pieces[-1].plan.classes) == 1
        elif self.confident >= SURE or not self._shows_one_class(tile):
            self._run(tile)
        self.skipped += len(self.canvas.pieces) == before
        if spool is not None and len(self.canvas.pieces) > before:
            spool.keep(self.canvas, tile)
        self.bar.advance()

    def _run(self, tile: Tile) -> None:
        self.refiner._refine_tile(self.pixels, self.known, tile, self.settings, self.chain, [self.canvas], self.context)

    def _shows_one_class(self, tile: Tile) -> bool:
        """Whether all pixels give the same class a probability of `confident`; between two such, resizing does too."""
        window = self.known.window(tile.top, tile.left, tile.height, tile.width)
        return bool((window.shares().least >= self.confident).any())


class _Tally:
    """Writes the answer band by band, and counts.

    Args:
        known: the segmentor's prediction.
        writers: of "labels", and of "changed" and "uncertainty" where they are wanted.
    """

    def __init__(self, known: StreamedPrediction, writers: dict[str, RowWriter]):
        self.known, self.writers = known, writers
        self.counts, self.changed = np.zeros(known.num_classes, dtype=np.int64), 0
        self._bands: dict[str, np.ndarray] = {}
        most = int(np.iinfo(writers["labels"].dtype).max)
        self._void = known.ignore_index if 0 <= known.ignore_index <= most else most

    def add(self, part: Tile, canvas: LargeCanvas) -> None:
        """Takes the canvas's answer for one part; parts come in rows of equal height, from left to right."""
        band = Tile(part.top, 0, part.height, self.known.size[1])
        if part.left == 0:
            shape = (band.height, band.width)
            self._bands = {what: np.empty(shape, writer.dtype) for what, writer in self.writers.items()}
        for window in split(part, WINDOW):
            here = window.slices_in(band)
            for what, values in self._answer(window, canvas).items():
                if what in self._bands:
                    self._bands[what][here] = values.numpy()
        if part.left + part.width == band.width:
            for what, rows in self._bands.items():
                self.writers[what].write(rows)

    def _answer(self, window: Tile, canvas: LargeCanvas) -> dict[str, Tensor]:
        answer = canvas.answer(window)
        labels, void = answer.labels, torch.zeros_like(answer.labels, dtype=torch.bool)
        if self.known.kind == "labels":
            void = answer.own == self.known.ignore_index
        moved = (labels != answer.own) & ~void
        self.changed += int(moved.sum())
        self.counts += torch.bincount(labels[~void], minlength=self.known.num_classes).numpy()
        return {
            "labels": labels.masked_fill(void, self._void),
            "changed": 255 * moved,
            "uncertainty": (255 * answer.uncertainty).round(),
        }


def label_type(num_classes: int) -> "np.dtype[np.uint8] | np.dtype[np.uint16]":
    """The type of the labels: classes, and one more number for void.

    Raises:
        InputError: more classes than 16 bits tell apart.
    """
    if num_classes > 65535:
        raise InputError("at most 65535 classes", str(num_classes), "num_classes= as large as the largest class id")
    return np.dtype(np.uint8) if num_classes <= 255 else np.dtype(np.uint16)


def peak_memory() -> int | None:
    """Most bytes of memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _check_paths(inputs: Sequence[object], outputs: Sequence[PathLike | None]) -> None:
    taken = {Path(path).resolve() for path in inputs if isinstance(path, str | os.PathLike)}
    for path in outputs:
        if path is None:
            continue
        check_output(path)
        if Path(path).resolve() in taken:
            raise InputError("outputs that are neither inputs nor each other", repr(str(path)), "another file name")
        taken.add(Path(path).resolve())
