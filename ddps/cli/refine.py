"""`ddps refine`: one image, or a whole folder of them; with predictions, unless the model needs none."""

import argparse
import dataclasses
from pathlib import Path

from ..config import LabelSpace
from ..datasets import read_classes
from ..errors import InputError
from ..refiner import DDPSRefiner
from ..video import VideoRefiner
from .options import add_refine_options, load_refiner, percentage, whole
from .refine_folder import run_folder
from .refine_item import CannotWrite, Classes, Job, is_done, load, measure_item, refine, save
from .refine_large import add_large_options, is_large, run_large
from .refine_plan import check_inputs_stay
from .refine_report import one_line, summarise
from .refine_stack import run_stack
from .report import check_new, check_picture, to_json

WORKERS, REVIEW_MOST = 2, 200


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
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help=".png or .npz to write; a folder; or .tif or .npy",
    )
    add_refine_options(parser)
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="JSON with num_classes, classes and ignore_index of label maps"
    )
    parser.add_argument(
        "--ignore-index", type=int, metavar="N", help="void in label maps (default: as --classes says, else 255)"
    )
    parser.add_argument("--format", choices=("png", "npz"), default="png", help="of a folder's outputs (default: png)")
    parser.add_argument("--overlay", type=Path, metavar="PATH", help="also write the mask over the image; or a folder")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="leave outputs that exist as they are, do the others")
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    folder = parser.add_argument_group("folders", "OUT also gets summary.jsonl, a row per item, and summary.json")
    folder.add_argument(
        "--workers",
        type=whole(1, 64),
        metavar="N",
        help=f"threads that load the next items, and as many that save the finished ones (default: {WORKERS})",
    )
    folder.add_argument(
        "--review",
        type=percentage,
        metavar="T",
        help="list items of which at least T %% of the labelled pixels changed, and show them in OUT/review.html",
    )
    folder.add_argument(
        "--review-most", type=whole(1, 5000), metavar="N", help=f"items on that page (default: {REVIEW_MOST})"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--video", action="store_true", help="a folder's images are frames, in the order of their names: less flicker"
    )
    form.add_argument(
        "--stack", action="store_true", help="PREDICTION is a stack of masks (N, h, w), .npy or .npz, and so is OUT"
    )
    add_large_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.stack:
        _check_options(args, folders=False)
        return run_stack(args)
    void_known = args.classes is not None or args.ignore_index is not None
    space = LabelSpace() if args.classes is None else read_classes(args.classes)
    if args.ignore_index is None:
        args.ignore_index = space.ignore_index
    if is_large(args):
        _check_options(args, folders=False)
        return run_large(args, space.num_classes)
    folders = args.image.is_dir()
    two = args.prediction is not None and args.image.exists() and args.prediction.exists()
    if two and folders != args.prediction.is_dir():
        got = "a folder and a file" if folders else "a file and a folder"
        raise InputError("IMAGE and PREDICTION as two files or two folders", got, "a pair of one kind")
    _check_options(args, folders)
    npz = args.format == "npz" if folders or args.output.is_dir() else args.output.suffix.lower() == ".npz"
    classes = Classes(space, args.ignore_index, args.kind, void_known, keep_ids=npz or args.video)
    if not folders:
        return _run_pair(args, classes)
    workers = WORKERS if args.workers is None else args.workers
    most = REVIEW_MOST if args.review_most is None else args.review_most
    return run_folder(args, classes, _open_refiner, workers, most)


def _check_options(args: argparse.Namespace, folders: bool) -> None:
    if not folders:
        for name in ("workers", "review", "review_most"):
            if getattr(args, name) is not None:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} with a folder of images", f"{str(args.image)!r}", f"leaving out {option}")
    if args.review_most is not None and args.review is None:
        raise InputError("--review T with --review-most", "no --review", "--review 2, for 2 % of the pixels")
    if args.review is not None and args.prediction is None:
        raise InputError("PREDICTION, to tell what changed with --review", "IMAGE alone", "a folder after IMAGE")
    if args.video and (not folders or args.prediction is None):
        got = "IMAGE alone" if folders else f"the file {str(args.image)!r}"
        raise InputError("a folder of frames and one of predictions with --video", got, "two folders")
    if args.video and args.classes is None and any(args.prediction.glob("*.png")):
        # frames do not all show all classes, and memory needs a plane for each
        raise InputError("--classes with label maps and --video", "none", "a classes.json with num_classes")


def _open_refiner(args: argparse.Namespace, classes: Classes) -> tuple[DDPSRefiner | VideoRefiner, Classes]:
    """The refiner, for --video with a memory, and what it says about the classes.

    Raises:
        InputError: it needs a prediction, which is not given, or knows other classes than --classes.
    """
    refiner = load_refiner(args, full_models=True)
    if args.prediction is None and refiner.config.backbone is None:
        raise InputError(
            f"IMAGE and PREDICTION, which {args.model} refines",
            "IMAGE alone",
            "a segmentor's prediction after IMAGE, or a whole model, which needs none, as --model",
        )
    own, given = refiner.config.labels, classes.space
    either: DDPSRefiner | VideoRefiner = VideoRefiner(refiner) if args.video else refiner
    if own.num_classes is None:
        return either, classes
    if given.num_classes not in (None, own.num_classes):
        expected = f"--classes with {own.num_classes} classes, as {args.model} has"
        raise InputError(expected, str(given.num_classes), "the universal weights, or the classes of these")
    space = dataclasses.replace(own, names=own.names or given.names)
    return either, dataclasses.replace(classes, space=space, keep_ids=True)


def _run_pair(args: argparse.Namespace, classes: Classes) -> int:
    job = _plan_pair(args)
    check_inputs_stay([job])
    report: dict[str, object] = {"refined": 0, "skipped": 1, "failed": [], "without_prediction": 0}
    row = None
    if not (args.resume and is_done(job)):
        if not args.resume:
            for path in job.outputs:
                check_new(path, args.overwrite)
        refiner, classes = _open_refiner(args, classes)
        loaded = load(job, classes)
        refined = refine(refiner, job, loaded, args, show_tiles=True)
        try:
            save(job, loaded, refined, args.overwrite or args.resume)
        except CannotWrite as error:
            raise InputError(f"to be able to write {str(job.mask)!r}", str(error), "making room there") from None
        row = measure_item(job, loaded, refined)
        report |= {"refined": 1, "skipped": 0}
    report |= summarise([] if row is None else [row])
    report["output"] = str(job.mask)
    print(to_json(report) if args.json else one_line(report))
    return 0


def _plan_pair(args: argparse.Namespace) -> Job:
    for path, what in ((args.image, "an image"), (args.prediction, "a prediction")):
        if path is not None and not path.exists():
            raise InputError(f"{what}, a file or a folder", f"{str(path)!r}, which does not exist", "checking the path")
    mask = args.output / f"{args.image.stem}.{args.format}" if args.output.is_dir() else args.output
    if mask.suffix.lower() not in (".png", ".npz"):
        raise InputError("an output ending in .png or .npz", repr(str(mask)), "one of these, or a folder that exists")
    if args.overlay is not None:
        check_picture(args.overlay)
    return Job(args.image, args.prediction, mask, args.overlay)
