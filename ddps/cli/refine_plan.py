"""Which files of two folders `ddps refine` puts together, and where their answers go."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..datasets import IMAGE_SUFFIXES, names_by_stem
from ..errors import InputError
from .pairs import PREDICTION_SUFFIXES, split_partners
from .refine_item import Job
from .refine_jobs import Folders, Jobs

ROWS, SUMMARY, PAGE, PICTURES = "summary.jsonl", "summary.json", "review.html", "review"


@dataclass(frozen=True)
class Plan:
    """What a folder holds.

    Attributes:
        jobs: in the order of their names.
        alone: predictions without an image.
        without_prediction: how many images are left out for want of a prediction.
    """

    jobs: Jobs
    alone: list[Path]
    without_prediction: int


def plan_folders(args: argparse.Namespace) -> Plan:
    """Pairs the files of two folders, or lists one folder of images.

    Raises:
        InputError: folders that are not there or hold nothing, or not one prediction with an image.
    """
    images = names_by_stem(args.image, IMAGE_SUFFIXES, "images")
    for folder in (args.output, args.overlay):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError("a folder as output for a folder", f"the file {str(folder)!r}", "another name")
    predictions: dict[str, str] = {}
    alone: list[str] = []
    if args.prediction is not None:
        given = names_by_stem(args.prediction, PREDICTION_SUFFIXES, "predictions")
        predictions, alone = split_partners(given, images)
    stems = list(images if args.prediction is None else predictions)
    folders = Folders(args.image, args.prediction, args.output, args.overlay)
    jobs = Jobs(folders, stems, [images[stem] for stem in stems], list(predictions.values()), f".{args.format}")
    return Plan(jobs, [args.prediction / name for name in alone], len(images) - len(jobs))


def check_inputs_stay(jobs: Sequence[Job]) -> None:
    """Refuses outputs that are inputs, or each other.

    Raises:
        InputError: as said.
    """
    real = _Real()
    there: dict[str, Path] = {}
    for job in jobs:
        if job.mask == job.overlay:
            raise InputError("one place for every output", f"{str(job.mask)!r} twice", "another place for the overlays")
        # What is not there yet is no input.
        there |= {real.path(path): path for path in job.outputs if os.path.lexists(path)}
    if there:
        for job in jobs:
            for path in job.inputs:
                if (output := there.get(real.path(path))) is not None:
                    raise InputError("outputs that are not inputs", repr(str(output)), "writing to another folder")


class _Real:
    """Where files really are; of a folder, that is found out once."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def path(self, path: Path) -> str:
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        here = os.path.join(self._folders[folder], path.name)
        return os.path.realpath(here) if os.path.islink(here) else here


def check_outputs_new(jobs: Sequence[Job], folder: Path, review: bool) -> None:
    """Refuses a folder that already has some of what would be written to it.

    Raises:
        InputError: as said.
    """
    names = [ROWS, SUMMARY, *([PAGE, PICTURES] if review else [])]
    wanted = chain((path for job in jobs for path in job.outputs), (folder / name for name in names))
    existing = filter(os.path.exists, wanted)
    if (first := next(existing, None)) is not None:
        got = f"{1 + sum(1 for _ in existing)} that do, such as {str(first)!r}"
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
