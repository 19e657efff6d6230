"""`ddps benchmark speed`: how long a chain takes, beside the network as it is written down, in one run."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import torch

from ..devices import find_device, has_native_bfloat16
from ..errors import InputError
from ..progress import Progress
from ..settings import Preset
from ..speed import Case, Speed, Timing, measure_paper, measure_universal
from ..speed_machine import machine
from .options import whole
from .report import check_new, table, to_json, write_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COLUMNS = ("image, classes", "what", "seconds", "min-max", "GFLOP", "GFLOP/s", "% of peak", "MiB")
PAPER_DIM, PAPER_STEPS, SHOWN = 256, 3, 8


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser(
        "speed",
        help="seconds, operations and memory of a chain",
        description="Times a chain of the paper's network as it runs here and as it is written down, in turn and with "
        "the same noise, with random weights; or a call of the universal refiner. Beside it stand the operations, what "
        "share of this machine's matrix products they reach, and the memory that a chain takes.",
    )
    parser.add_argument("--model", choices=("paper", "universal"), default="paper", help="(default: paper)")
    parser.add_argument(
        "--sizes", type=_sizes, default=((512, 512),), metavar="N,HxW", help="of the images, in pixels (default: 512)"
    )
    parser.add_argument(
        "--classes", type=_listed(2, 65536), default=(151,), metavar="K,K", help="numbers of classes (default: 151)"
    )
    parser.add_argument(
        "--steps", type=whole(1, 4096), metavar="N", help=f"passes (default: {PAPER_STEPS}; universal: the model's)"
    )
    parser.add_argument("--batch", type=whole(1, 4096), default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="(default: float32; universal: bfloat16 where the hardware has it)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument(
        "--dim", type=whole(8, 4096), metavar="N", help=f"width of the paper's U-Net (default: {PAPER_DIM})"
    )
    parser.add_argument("--preset", choices=get_args(Preset), help="of the universal refiner (default: default)")
    parser.add_argument(
        "--shown",
        type=whole(1, 65536),
        metavar="N",
        help=f"classes that are likely anywhere in the universal refiner's picture (default: {SHOWN}, one per slot)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile ours; CUDA graphs on CUDA")
    parser.add_argument("--repeats", type=whole(1, 1000), default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write all figures, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.output is not None:
        check_new(args.output, args.overwrite)
    paper = args.model == "paper"
    if args.dim is not None and (not paper or args.dim % 8):
        raise InputError("--dim as a multiple of 8, for --model paper", f"{args.dim}, {args.model}", "leaving it out")
    for name in ("preset", "shown"):
        if paper and getattr(args, name) is not None:
            raise InputError(f"--{name} with --model universal", "--model paper", f"leaving --{name} out")
    device = find_device(args.device)
    dtype = DTYPES[args.dtype or ("bfloat16" if not paper and has_native_bfloat16(device) else "float32")]
    steps = (args.steps or PAPER_STEPS) if paper else args.steps
    cases = [
        Case(
            size,
            classes,
            steps,
            args.batch,
            dtype,
            device,
            args.dim or PAPER_DIM,
            min(classes, args.shown or SHOWN),
            args.preset or "default",
            args.compile,
        )
        for size in args.sizes
        for classes in args.classes
    ]
    head = {"model": args.model, "repeats": args.repeats, "machine": machine(device)}
    measure = measure_paper if paper else measure_universal
    bar = Progress(len(cases), "measuring")
    results = []
    for case in cases:
        results.append(measure(case, args.repeats))
        bar.advance()
    report = {**head, "cases": [_as_json(result, paper) for result in results]}
    if args.output is not None:
        write_text(to_json(report) + "\n", args.output, args.overwrite)
    print(to_json(report) if args.json else _as_text(head, results))
    return 0


def _as_json(result: Speed, paper: bool) -> dict[str, object]:
    case = result.case
    settings: dict[str, object] = {
        **asdict(case),
        "dtype": str(case.dtype).removeprefix("torch."),
        "device": str(case.device),
    }
    figures: dict[str, object] = {"peak_flops_per_second": result.peak}
    if paper:
        figures |= {
            "speedup": result.speedup,
            "speedup_as_released": result.speedup_as_released,
            "labels_agree_percent": result.agreement,
        }
        del settings["shown"], settings["preset"]
    else:
        del settings["dim"]
    timings = {
        name: {
            "seconds": asdict(timing.seconds),
            "flops": timing.flops,
            "flops_per_second": None if timing.flops is None else timing.flops / timing.seconds.median,
            "percent_of_peak": _percent_of_peak(timing, result.peak),
            "peak_memory_bytes": timing.memory,
        }
        for name, timing in result.timings.items()
    }
    return {**settings, **figures, "timings": timings}


def _percent_of_peak(timing: Timing, peak: float) -> float | None:
    return None if timing.flops is None else 100 * timing.flops / timing.seconds.median / peak


def _as_text(head: dict[str, object], results: Sequence[Speed]) -> str:
    case = results[0].case
    steps = f"preset {case.preset}" if case.steps is None else f"{case.steps} steps"
    dtype = str(case.dtype).removeprefix("torch.")
    kind = f"{head['model']}, {steps}, batch {case.batch}, {dtype}, {case.device}, threads: {torch.get_num_threads()}"
    rows: list[Sequence[str]] = [COLUMNS]
    notes = []
    for result in results:
        name = f"{result.case.size[0]}x{result.case.size[1]}, {result.case.classes}"
        rows += [(name, *_cells(what, timing, result.peak)) for what, timing in result.timings.items()]
        note = f"{name}: matrix products reach {result.peak / 1e9:.1f} GFLOP/s."
        if result.speedup is not None and result.speedup_as_released is not None:
            note += (
                f"\n  naive / ours: {result.speedup:.2f}; with the released code's noise: "
                f"{result.speedup_as_released:.2f}; the same labels: {result.agreement:.3f} %."
            )
        notes.append(note)
    return "\n\n".join([kind, table(rows), "\n".join(notes)])


def _cells(what: str, timing: Timing, peak: float) -> tuple[str, ...]:
    seconds, flops = timing.seconds, timing.flops
    share = _percent_of_peak(timing, peak)
    return (
        what,
        f"{seconds.median:.4g}",
        f"{seconds.shortest:.4g}-{seconds.longest:.4g}",
        "" if flops is None else f"{flops / 1e9:.1f}",
        "" if flops is None else f"{flops / 1e9 / seconds.median:.1f}",
        "" if share is None else f"{share:.0f}",
        "" if timing.memory is None else f"{timing.memory / 2**20:.0f}",
    )


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Sides from 16 to 8192: "512", "512x1024", or several with commas."""
    sizes = []
    for part in text.split(","):
        sides = part.lower().split("x")
        sides = sides * 2 if len(sides) == 1 else sides
        if len(sides) != 2 or not all(side.isdecimal() and 16 <= int(side) <= 8192 for side in sides):
            raise argparse.ArgumentTypeError(f"expected sizes such as 512,512x1024 (16 to 8192), got {text!r}")
        sizes.append((int(sides[0]), int(sides[1])))
    return tuple(dict.fromkeys(sizes))


def _listed(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    one = whole(low, high)
    return lambda text: tuple(dict.fromkeys(one(part) for part in text.split(",")))
