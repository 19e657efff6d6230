"""`ddps refine --stack`: a stack of masks of one image, from file to file."""

import argparse

import numpy as np

from ..errors import InputError
from ..stack_inputs import check_stack_file, read_stack
from ..stacks import refine_masks
from .options import load_refiner
from .report import check_new, percent, to_json


def run_stack(args: argparse.Namespace) -> int:
    """Refines IMAGE's stack PREDICTION, and prints what became of it.

    Args:
        args: of `ddps refine`.

    Raises:
        InputError: whatever `refine_masks` says, a folder, no PREDICTION, or an option that stacks do not take.
    """
    for path, what in ((args.image, "IMAGE"), (args.prediction, "PREDICTION")):
        if path is None or path.is_dir():
            got = "none" if path is None else f"the folder {str(path)!r}"
            raise InputError(f"{what} as one file with --stack", got, "one image at a time")
    for option in ("overlay", "classes", "ignore_index", "changed", "uncertainty", "confident"):
        if getattr(args, option) is not None:
            name = "--" + option.replace("_", "-")
            raise InputError(f"no {name} with --stack", repr(str(getattr(args, option))), f"leaving out {name}")
    if args.kind == "labels":
        raise InputError("--kind logits or probs with --stack", "labels", "leaving it out for masks of 0 and 1")
    target = args.output / f"{args.image.stem}.npz" if args.output.is_dir() else args.output
    check_stack_file(target)
    if target.resolve() in (args.image.resolve(), args.prediction.resolve()):
        raise InputError("outputs that are not inputs", repr(str(target)), "writing to another folder")
    if args.resume and target.exists():
        print(to_json({"refined": 0, "skipped": 1}) if args.json else f"skipped {target}, which exists")
        return 0
    check_new(target, args.overwrite)
    masks, found = read_stack(args.prediction)
    if "auto" not in (args.kind, found) and args.kind != found:
        hint = f"--kind {found}, or leaving it out"
        raise InputError(f"--kind {args.kind}", f"{args.prediction.name}, which holds {found}", hint)
    stack = refine_masks(
        load_refiner(args),
        args.image,
        masks,
        kind=args.kind if found == "auto" else found,
        preset=args.preset,
        steps=args.steps,
        sampler=args.sampler,
        seed=args.seed,
        num_samples=args.num_samples,
        guidance_scale=args.guidance_scale,
        tile=args.tile,
        progress=True,
    )
    try:
        stack.save(target, args.overwrite)
    except OSError as error:
        got = error.strerror or str(error)
        raise InputError(f"to be able to write {str(target)!r}", got, "making room there") from None
    change = 100 * np.asarray(stack.change, dtype=np.float64)
    report = {
        "refined": 1,
        "skipped": 0,
        "masks": len(stack),
        "change": change.tolist(),
        "seconds": stack.seconds,
        "output": str(target),
    }
    mean = float(change.mean()) if len(stack) else float("nan")
    line = f"refined {len(stack)} masks, changed by {percent(mean)} % on average; {stack.seconds:.2f} s -> {target}"
    print(to_json(report) if args.json else line)
    return 0
