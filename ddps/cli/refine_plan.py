"""Which files of two folders `ddps refine` puts together, and where their answers go."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..datasets import IMAGE_SUFFIXES, files_by_stem
from ..errors import InputError
from .pairs import PREDICTION_SUFFIXES, split_partners
from .refine_item import Job

ROWS, SUMMARY, PAGE, PICTURES = "summary.jsonl", "summary.json", "review.html", "review"


@dataclass(frozen=True)
class Plan:
    """What a folder holds.

    Attributes:
        jobs: in the order of their names.
        alone: predictions without an image.
        without_prediction: how many images are left out for want of a prediction.
    """

    jobs: list[Job]
    alone: list[Path]
    without_prediction: int


def plan_folders(args: argparse.Namespace) -> Plan:
    """Pairs the files of two folders, or lists one folder of images.

    Raises:
        InputError: folders that are not there or hold nothing, or not one prediction with an image.
    """
    images = files_by_stem(args.image, IMAGE_SUFFIXES, "images")
    for folder in (args.output, args.overlay):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError("a folder as output for a folder", f"the file {str(folder)!r}", "another name")
    predictions: dict[str, Path] = {}
    alone: list[Path] = []
    if args.prediction is not None:
        given = files_by_stem(args.prediction, PREDICTION_SUFFIXES, "predictions")
        predictions, alone = split_partners(given, images)
    stems = images if args.prediction is None else predictions
    jobs = [
        Job(
            images[stem],
            predictions.get(stem),
            args.output / f"{stem}.{args.format}",
            None if args.overlay is None else args.overlay / f"{stem}.jpg",
        )
        for stem in stems
    ]
    return Plan(jobs, alone, len(images) - len(jobs))


def check_inputs_stay(jobs: Sequence[Job]) -> None:
    """Refuses outputs that are inputs, or each other.

    Raises:
        InputError: as said.
    """
    inputs = {path.resolve() for job in jobs for path in job.inputs}
    outputs = [path for job in jobs for path in job.outputs]
    for path in outputs:
        if path.resolve() in inputs:
            raise InputError("outputs that are not inputs", repr(str(path)), "writing to another folder")
    if len(set(outputs)) < len(outputs):
        raise InputError("one place for every output", f"{str(outputs[0])!r} twice", "another place for the overlays")


def check_outputs_new(jobs: Sequence[Job], folder: Path, review: bool) -> None:
    """Refuses a folder that already has some of what would be written to it.

    Raises:
        InputError: as said.
    """
    names = [ROWS, SUMMARY, *([PAGE, PICTURES] if review else [])]
    wanted = [path for job in jobs for path in job.outputs] + [folder / name for name in names]
    existing = [path for path in wanted if path.exists()]
    if existing:
        got = f"{len(existing)} that do, such as {str(existing[0])!r}"
        raise InputError("outputs that do not exist yet", got, "--resume, --overwrite, or another folder")


def make_folder(folder: Path) -> None:
    """Makes a folder for outputs.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = f"{str(folder)!r}: {error.strerror or error}"
        raise InputError(
            "a folder that can be made and written to", got, "another folder, or its permissions"
        ) from None
