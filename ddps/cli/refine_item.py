"""One item of `ddps refine`: what is read, what is refined, what is written."""

import argparse
import errno
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..atomic import atomic_write
from ..config import LabelSpace
from ..errors import InputError
from ..inputs import load_image
from ..outputs import Refinement
from ..predictions import AnyKind, load_prediction, read_prediction_file
from ..refiner import DDPSRefiner
from ..review import Row, measure
from ..video import VideoRefiner
from .options import refine_one
from .refine_labels import VOID, LabelMap, read_label_map
from .report import PICTURE_FORMATS, write_picture

# What the next item would run into as well: a full disk, one that may not be written, a quota, a broken one.
_OF_THE_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO)
_ENDS = {".png": b"\0\0\0\0IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}


class CannotWrite(Exception):
    """Nothing more can be written, for this item or any other."""


@dataclass(frozen=True)
class Job:
    """One image to refine, alone or with its prediction, and what to write."""

    image: Path
    prediction: Path | None
    mask: Path
    overlay: Path | None

    @property
    def name(self) -> str:
        return self.image.stem

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.image,) if self.prediction is None else (self.image, self.prediction)

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (self.mask,) if self.overlay is None else (self.mask, self.overlay)


@dataclass(frozen=True)
class Classes:
    """What is known about the classes before an item is read.

    Attributes:
        space: of --classes, or of the weights; `num_classes` is None where neither says it.
        ignore_index: void in label maps.
        kind: what predictions are.
        void_known: whether somebody has said what void is; else a label map of nothing but 0 and 255 is refused.
        keep_ids: whether the network or the output has a plane for every class, so that ids must stay as they are.
    """

    space: LabelSpace
    ignore_index: int
    kind: AnyKind
    void_known: bool
    keep_ids: bool


@dataclass(frozen=True, eq=False)
class Loaded:
    """A job's files, read.

    Attributes:
        pixels: (3, H, W) float32 image.
        values: the prediction, as `refine` takes it, or None.
        kind: what `values` are.
        labels: the label map, where the prediction is one.
        classes: as given.
    """

    pixels: Tensor
    values: np.ndarray | None
    kind: AnyKind
    labels: LabelMap | None
    classes: Classes

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @cached_property
    def before(self) -> NDArray[np.int64] | None:
        """(H, W) class ids of the prediction itself at image size, as in its file."""
        if self.values is None:
            return None
        if self.labels is not None:
            count = len(self.labels.ids)
            known = load_prediction(self.labels.labels, self.size, "labels", VOID, count)
            return self.labels.restore(known.argmax().numpy())
        known = load_prediction(self.values, self.size, self.kind, self.classes.ignore_index)
        return known.argmax().numpy()


def load(job: Job, classes: Classes) -> Loaded:
    """Reads a job's files.

    Raises:
        InputError: a file that cannot be read, or files that do not fit together.
    """
    pixels = load_image(job.image)
    if job.prediction is None:
        return Loaded(pixels, None, classes.kind, None, classes)
    values, found = read_prediction_file(job.prediction)
    asked = classes.kind
    if "auto" not in (asked, found) and asked != found:
        hint = f"--kind {found}, or leaving it out"
        raise InputError(f"--kind {asked}", f"{job.prediction.name}, which holds {found}", hint)
    kind = asked if found == "auto" else found
    if kind not in ("auto", "labels") or (kind == "auto" and (values.ndim != 2 or values.dtype.kind not in "biu")):
        return Loaded(pixels, values, kind, None, classes)
    size = (pixels.shape[-2], pixels.shape[-1])
    doubt = asked == "auto" and not classes.void_known and values.dtype.kind in "biu"
    labels = read_label_map(
        values,
        job.prediction,
        size,
        "auto" if doubt else "labels",
        classes.ignore_index,
        classes.space.num_classes,
        classes.keep_ids,
    )
    return Loaded(pixels, labels.labels, "labels", labels, classes)


def refine(
    refiner: DDPSRefiner | VideoRefiner,
    job: Job,
    loaded: Loaded,
    args: argparse.Namespace,
    show_tiles: bool = False,
) -> Refinement:
    """Refines what was loaded; label maps answer in their files' own ids.

    Raises:
        InputError: what the refiner refuses.
    """
    labels, classes = loaded.labels, loaded.classes
    refined = refine_one(
        refiner,
        args,
        loaded.pixels,
        loaded.values,
        loaded.kind,
        ignore_index=classes.ignore_index if labels is None else VOID,
        num_classes=classes.space.num_classes if labels is None else len(labels.ids),
        return_probs=job.mask.suffix.lower() == ".npz",
        progress=show_tiles,
    )
    return refined if labels is None else labels.restore_answer(refined, classes.space.palette)


def measure_item(job: Job, loaded: Loaded, refined: Refinement) -> Row:
    """What the refinement changed."""
    before, after, labels = loaded.before, np.asarray(refined.labels), loaded.labels
    if loaded.values is not None and labels is None:
        void = np.zeros(after.shape, np.bool_)  # logits say a class everywhere
    else:
        void = (after if before is None else before) == loaded.classes.ignore_index
    resized = labels is not None and labels.resized
    unsure = np.asarray(refined.uncertainty)
    return measure(job.name, before, after, void, unsure, refined.seconds, resized)


def save(job: Job, loaded: Loaded, refined: Refinement, overwrite: bool) -> None:
    """Writes a job's outputs, each whole or not at all; the mask comes last: where it is, the item is done.

    Raises:
        CannotWrite: the disk takes nothing more.
        InputError: an output that exists, without `overwrite`.
    """
    try:
        if job.overlay is not None:
            write_picture(refined.overlay(loaded.pixels), job.overlay, overwrite)
        if loaded.labels is not None and job.mask.suffix.lower() == ".png":
            with atomic_write(job.mask, overwrite) as file:
                loaded.labels.write(refined, file)
        else:
            refined.save(job.mask, overwrite=overwrite)
    except OSError as error:
        raise of_the_disk(error) from error
    except InputError:
        if all(path.parent.is_dir() for path in job.outputs):
            raise
        raise CannotWrite("its folder is gone") from None


def of_the_disk(error: OSError) -> Exception:
    """`CannotWrite` where the next item would fail as well, else the error itself."""
    return CannotWrite(error.strerror or str(error)) if error.errno in _OF_THE_DISK else error


def is_done(job: Job) -> bool:
    """Whether all outputs are there and whole: a copy that was cut short is not."""
    return all(_is_whole(path) for path in job.outputs)


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() not in PICTURE_FORMATS:
        return zipfile.is_zipfile(path)
    end = _ENDS[path.suffix.lower()]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end
