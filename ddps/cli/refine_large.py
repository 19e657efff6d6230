"""`ddps refine` of one image that is too large for memory: its output is a tiled TIFF or an .npy file."""

import argparse
from pathlib import Path

from ..errors import InputError
from ..large import LargeSummary, refine_large
from ..refiner import SURE
from .options import load_refiner
from .report import check_new, percent, to_json

LARGE_SUFFIXES = (".tif", ".tiff", ".npy")
_OPTIONS = ("changed", "uncertainty", "confident")


def add_large_options(parser: argparse.ArgumentParser) -> None:
    """What only large images take, beside the options of `ddps refine`."""
    group = parser.add_argument_group("large images, with an OUT ending in .tif or .npy")
    group.add_argument("--changed", type=Path, metavar="PATH", help="also write what changed, .tif or .npy")
    group.add_argument("--uncertainty", type=Path, metavar="PATH", help="also write the uncertainty, .tif or .npy")
    group.add_argument(
        "--confident",
        type=float,
        metavar="P",
        help=f"leave tiles alone that show one class with at least this probability (default: {SURE})",
    )


def is_large(args: argparse.Namespace) -> bool:
    """Whether the output asks for `run_large`.

    Raises:
        InputError: it does not, but an option of large images was given.
    """
    if args.output.suffix.lower() in LARGE_SUFFIXES and not args.output.is_dir():
        return True
    for name in _OPTIONS:
        if getattr(args, name) is not None:
            raise InputError(f"an output ending in .tif or .npy with --{name}", repr(str(args.output)), "one of these")
    return False


def run_large(args: argparse.Namespace, num_classes: int | None = None) -> int:
    """Refines IMAGE's PREDICTION from file to file, and prints what became of it.

    Args:
        args: of `ddps refine`, with `add_large_options`.
        num_classes: K of a label map, where its largest id does not tell.

    Raises:
        InputError: whatever `refine_large` says, a folder, no prediction, or an option that large images do not take.
    """
    for path, what in ((args.image, "IMAGE"), (args.prediction, "PREDICTION")):
        if path is None or path.is_dir():
            got = "none" if path is None else f"the folder {str(path)!r}"
            raise InputError(f"{what} as one file for an output like {args.output.name!r}", got, "one image at a time")
    if args.overlay is not None:
        raise InputError("no --overlay of a large image", repr(str(args.overlay)), "--changed")
    if args.resume and args.output.exists():
        print(to_json({"refined": 0, "skipped": 1}) if args.json else f"skipped {args.output}, which exists")
        return 0
    overwrite = args.overwrite or args.resume
    for path in (args.output, args.changed, args.uncertainty):
        if path is not None:
            check_new(path, overwrite)
    summary = refine_large(
        load_refiner(args),
        args.image,
        args.prediction,
        args.output,
        changed=args.changed,
        uncertainty=args.uncertainty,
        kind=args.kind,
        preset=args.preset,
        steps=args.steps,
        sampler=args.sampler,
        seed=args.seed,
        num_samples=args.num_samples,
        guidance_scale=args.guidance_scale,
        early_exit=args.early_exit,
        tile=args.tile,
        ignore_index=args.ignore_index,
        num_classes=num_classes,
        confident=SURE if args.confident is None else args.confident,
        overwrite=overwrite,
        progress=True,
    )
    report = {"refined": 1, "skipped": 0, **summary.as_dict(), "output": str(args.output)}
    print(to_json(report) if args.json else _summary(summary, args.output))
    return 0


def _summary(summary: LargeSummary, output: Path) -> str:
    height, width = summary.size
    memory = "" if summary.peak_memory is None else f", peak memory {summary.peak_memory / 2**30:.2f} GiB"
    return (
        f"refined {width} x {height} pixels; {percent(summary.changed)} % of them changed, "
        f"{percent(summary.skipped)} % of {summary.tiles} tiles had nothing to refine, "
        f"{summary.seconds:.1f} s{memory} -> {output}"
    )
