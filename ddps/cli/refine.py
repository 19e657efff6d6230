"""`ddps refine`: one image, or a whole folder of them; with predictions, unless the model needs none."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets import IMAGE_SUFFIXES, files_by_stem
from ..errors import InputError
from ..outputs import Refinement
from ..progress import Progress
from ..refiner import DDPSRefiner
from .options import add_refine_options, load_refiner, refine_one
from .pairs import PREDICTION_SUFFIXES, check_partners, name_item
from .report import check_new, check_picture, say_error, to_json, write_picture

SOME_FAILED = 1


@dataclass(frozen=True)
class Job:
    """One image to refine, alone or with its prediction, and what to write."""

    image: Path
    prediction: Path | None
    mask: Path
    overlay: Path | None

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.image,) if self.prediction is None else (self.image, self.prediction)

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (self.mask,) if self.overlay is None else (self.mask, self.overlay)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "refine",
        help="refine one prediction, or a folder of them",
        description="Refines IMAGE's PREDICTION: two files, or two folders whose files pair up by their stem. "
        "A whole model, which `ddps convert` and `ddps train --recipe` make, needs no PREDICTION: it goes from the "
        "image to a mask.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument(
        "prediction",
        type=Path,
        nargs="?",
        metavar="PREDICTION",
        help="right after IMAGE: .npz (logits, probs or labels), .npy or .png, or a folder; whole models need none",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help=".png or .npz to write; or a folder"
    )
    add_refine_options(parser)
    parser.add_argument("--ignore-index", type=int, default=255, metavar="N", help="void in label maps (default: 255)")
    parser.add_argument("--format", choices=("png", "npz"), default="png", help="of a folder's outputs (default: png)")
    parser.add_argument("--overlay", type=Path, metavar="PATH", help="also write the mask over the image; or a folder")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="leave outputs that exist as they are, do the others")
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    folders = args.image.is_dir()
    two = args.prediction is not None and args.image.exists() and args.prediction.exists()
    if two and folders != args.prediction.is_dir():
        got = "a folder and a file" if folders else "a file and a folder"
        raise InputError("IMAGE and PREDICTION as two files or two folders", got, "a pair of one kind")
    jobs, without_prediction = _plan_folders(args) if folders else (_plan_pair(args), 0)
    _check_inputs_stay(jobs)
    todo = [job for job in jobs if not (args.resume and all(path.exists() for path in job.outputs))]
    if not args.resume:
        _check_outputs(todo, args.overwrite, make_folder=folders)
    results, failed = _refine_all(todo, args, stop_at_error=not folders) if todo else ([], [])
    report = {
        "refined": len(results),
        "skipped": len(jobs) - len(todo),
        "failed": [{"name": name, "error": error} for name, error in failed],
        "without_prediction": without_prediction,
        "changed": float(np.mean([changed for changed, _ in results])) if results else float("nan"),
        "seconds_per_image": float(np.mean([seconds for _, seconds in results])) if results else float("nan"),
        "output": str(args.output if folders else jobs[0].mask),
    }
    print(to_json(report) if args.json else _summary(report, results))
    return SOME_FAILED if failed else 0


def _plan_pair(args: argparse.Namespace) -> list[Job]:
    for path, what in ((args.image, "an image"), (args.prediction, "a prediction")):
        if path is not None and not path.exists():
            raise InputError(f"{what}, a file or a folder", f"{str(path)!r}, which does not exist", "checking the path")
    mask = args.output / f"{args.image.stem}.{args.format}" if args.output.is_dir() else args.output
    if mask.suffix.lower() not in (".png", ".npz"):
        raise InputError("an output ending in .png or .npz", repr(str(mask)), "one of these, or a folder that exists")
    if args.overlay is not None:
        check_picture(args.overlay)
    return [Job(args.image, args.prediction, mask, args.overlay)]


def _plan_folders(args: argparse.Namespace) -> tuple[list[Job], int]:
    images = files_by_stem(args.image, IMAGE_SUFFIXES, "images")
    predictions = {}
    if args.prediction is not None:
        predictions = files_by_stem(args.prediction, PREDICTION_SUFFIXES, "predictions")
        check_partners(predictions, images, "an image")
    stems = images if args.prediction is None else predictions
    for folder in (args.output, args.overlay):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError("a folder as output for a folder", f"the file {str(folder)!r}", "another name")
    jobs = [
        Job(
            images[stem],
            predictions.get(stem),
            args.output / f"{stem}.{args.format}",
            None if args.overlay is None else args.overlay / f"{stem}.jpg",
        )
        for stem in stems
    ]
    return jobs, len(images) - len(stems)


def _check_inputs_stay(jobs: list[Job]) -> None:
    inputs = {path.resolve() for job in jobs for path in job.inputs}
    outputs = [path for job in jobs for path in job.outputs]
    for path in outputs:
        if path.resolve() in inputs:
            raise InputError("outputs that are not inputs", repr(str(path)), "writing to another folder")
    if len(set(outputs)) < len(outputs):
        raise InputError("one place for every output", f"{str(outputs[0])!r} twice", "another place for the overlays")


def _check_outputs(jobs: list[Job], overwrite: bool, make_folder: bool) -> None:
    existing = [path for job in jobs for path in job.outputs if path.exists()]
    if len(existing) > 1 and not overwrite:
        got = f"{len(existing)} that do, such as {str(existing[0])!r}"
        raise InputError("outputs that do not exist yet", got, "--resume, --overwrite, or another folder")
    for job in jobs:
        for path in job.outputs:
            check_new(path, overwrite, make_folder)


def _refine_all(
    jobs: list[Job], args: argparse.Namespace, stop_at_error: bool
) -> tuple[list[tuple[float, float]], list[tuple[str, str]]]:
    """Share of changed pixels in percent (nan without a prediction) and seconds of every job that worked; name and
    error of the others."""
    refiner = load_refiner(args, full_models=True)
    if args.prediction is None and refiner.config.backbone is None:
        raise InputError(
            f"IMAGE and PREDICTION, which {args.model} refines",
            "IMAGE alone",
            "a segmentor's prediction after IMAGE, or a whole model, which needs none, as --model",
        )
    if not stop_at_error:
        for folder in {path.parent for path in jobs[0].outputs}:
            folder.mkdir(parents=True, exist_ok=True)
    results, failed = [], []
    bar = Progress(len(jobs), "refining")
    for job in jobs:
        try:
            refined = _refine(refiner, job, args, show_tiles=stop_at_error)
            share = float("nan") if job.prediction is None else float(np.asarray(refined.changed).mean())
            results.append((100.0 * share, refined.seconds))
        except (InputError, OSError) as error:
            if stop_at_error:
                raise
            named = name_item(error, job.inputs[-1].name)
            failed.append((job.image.stem, str(named)))
            if bar.shown:
                print(file=sys.stderr)
            say_error(named)
        bar.advance()
    return results, failed


def _refine(refiner: DDPSRefiner, job: Job, args: argparse.Namespace, show_tiles: bool) -> Refinement:
    refined = refine_one(
        refiner,
        args,
        job.image,
        job.prediction,
        args.kind,
        ignore_index=args.ignore_index,
        return_probs=job.mask.suffix.lower() == ".npz",
        progress=show_tiles,
    )
    overwrite = args.overwrite or args.resume
    # The mask comes last: where it is, --resume finds the whole item done.
    if job.overlay is not None:
        write_picture(refined.overlay(job.image), job.overlay, overwrite)
    refined.save(job.mask, overwrite=overwrite)
    return refined


def _summary(report: dict[str, object], results: list[tuple[float, float]]) -> str:
    parts = [f"refined {report['refined']}"]
    if report["skipped"]:
        parts.append(f"skipped {report['skipped']} that existed")
    if isinstance(report["failed"], list) and report["failed"]:
        parts.append(f"failed {len(report['failed'])}")
    if report["without_prediction"]:
        parts.append(f"left out {report['without_prediction']} images without a prediction")
    line = ", ".join(parts)
    if results:
        changed, seconds = np.mean(results, axis=0)
        share = "" if np.isnan(changed) else f"{changed:.2f} % of the pixels changed, "
        line += f"; {share}{seconds:.2f} s per image"
    return f"{line} -> {report['output']}"
