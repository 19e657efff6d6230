"""`ddps benchmark quality`: our refiner beside what else there is, in one run on the same inputs."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from ..baselines import CRF_PRESETS, GUIDED_EPS, GUIDED_RADIUS, CrfPreset, bilinear, dense_crf, guided_filter
from ..benchmark import Comparison, Figures, Method, refined, segmentor_alone
from ..errors import InputError
from ..predictions import AnyKind
from ..progress import Progress
from ..rough import import_cv2
from . import benchmark_calibration, benchmark_speed
from .benchmark_inputs import ROUGH, read_case
from .benchmark_report import InputResult, as_json, as_markdown, as_text
from .benchmark_sets import DataSet, Split, SplitFiles, read_sets
from .options import add_model_options, load_refiner, whole
from .pairs import name_item
from .report import check_new, to_json, write_text

SEGMENTOR = "segmentor"
METHODS = ("bilinear", "densecrf", "guided", "single", "refined")


@dataclass(frozen=True)
class Plan:
    """One input of one set: a segmentor's predictions or a kind of rough masks, and the images to measure on."""

    data: DataSet
    input_name: str
    files: SplitFiles
    stems: tuple[str, ...]
    val_files: SplitFiles | None
    val_stems: tuple[str, ...]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "benchmark",
        help="compare quality with other refiners, or measure speed and calibration",
        description="How good our refiner is, how fast, and how far its confidence can be trusted.",
    )
    kinds = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    quality = kinds.add_parser(
        "quality",
        help="what every method does to the masks of segmentors, and to rough ones",
        description="Compares the segmentor alone, bilinear upsampling, DenseCRF, guided filtering, our refiner in a "
        "single pass and our refiner with its defaults on the same inputs. The file of --sets holds "
        '{"sets": [{"name", "images", "masks", "classes", "predictions": {segmentor: folder}, "val": {"images", '
        '"masks", "predictions"}}]}; predictions and val may be left out, and paths are relative to the file.',
    )
    _add_options(quality)
    quality.set_defaults(run=run)
    benchmark_speed.add_parser(kinds)
    benchmark_calibration.add_parser(kinds)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sets", type=Path, action="append", required=True, metavar="FILE", help="JSON of the sets; may be repeated"
    )
    parser.add_argument(
        "--rough", type=_names(ROUGH), default=(), metavar="A,B", help=f"also rough masks: {', '.join(ROUGH)}"
    )
    parser.add_argument(
        "--methods",
        type=_names(METHODS),
        default=METHODS,
        metavar="A,B",
        help=f"what to compare with the segmentor alone (default: {','.join(METHODS)})",
    )
    add_model_options(parser)
    parser.add_argument("--every", type=whole(1, 10**9), default=1, metavar="N", help="every N-th image of a set")
    parser.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="then the first N of them")
    parser.add_argument(
        "--thin", type=_any_names, default=(), metavar="A,B", help="classes whose IoU is reported one by one"
    )
    parser.add_argument(
        "--densecrf",
        type=_preset,
        metavar="SXY-SRGB-COMPAT",
        help="DenseCRF's bilateral term (default: the best one of "
        f"{', '.join(map(str, CRF_PRESETS))} on a set's val, by mIoU + mBIoU; without val {CRF_PRESETS[0]})",
    )
    parser.add_argument(
        "--val-limit", type=whole(1, 10**9), default=20, metavar="N", help="images of val to choose on (default: 20)"
    )
    parser.add_argument(
        "--kind", choices=get_args(AnyKind), default="auto", help="what predictions are, where their file does not say"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables, as Markdown")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --markdown")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    if args.markdown is not None:
        check_new(args.markdown, args.overwrite)
    sets = [data for path in args.sets for data in read_sets(path)]
    _check_thin(args.thin, sets)
    plans = [plan for data in sets for plan in _plans(data, args)]
    # What is missing is said before the first image, not in the middle.
    refiner = load_refiner(args) if {"single", "refined"} & set(args.methods) else None
    fixed: dict[str, Method] = {}
    if refiner is not None:
        fixed = {"single": refined(refiner, "single"), "refined": refined(refiner)}
    if "bilinear" in args.methods:
        fixed["bilinear"] = bilinear
    if "guided" in args.methods:
        fixed["guided"] = guided_filter()
    if "densecrf" in args.methods:
        dense_crf(CRF_PRESETS[0])
    if "polygon" in args.rough:
        import_cv2("--rough polygon")
    bar = Progress(sum(len(plan.stems) + len(plan.val_stems) for plan in plans), "measuring")
    results = [_measure(plan, args, fixed, bar.advance) for plan in plans]
    ours = {} if refiner is None else {"model": args.model, "device": str(refiner.device)}
    head = {**ours, "threads": torch.get_num_threads()}
    if args.markdown is not None:
        write_text(as_markdown(head, results), args.markdown, args.overwrite)
    print(to_json(as_json(head, results)) if args.json else as_text(head, results))
    return 0


def _plans(data: DataSet, args: argparse.Namespace) -> list[Plan]:
    predictions = data.split.predictions
    twice = sorted(set(predictions) & set(args.rough))
    if twice:
        raise InputError("segmentors not named like rough masks", ", ".join(twice), "another name for the segmentor")
    if not predictions and not args.rough:
        raise InputError(f"something to refine in the set {data.name}", "no predictions", "--rough, or predictions")
    files = data.split.files()
    stems = files.stems[:: args.every][: args.limit]
    tuned = data.val if "densecrf" in args.methods and args.densecrf is None else None
    plans = []
    for name in (*predictions, *args.rough):
        val = None if tuned is None else _part(tuned, name, name in predictions)
        val_files = None if val is None else val.files()
        val_stems = () if val_files is None else _evenly(val_files.stems, args.val_limit)
        plans.append(Plan(data, name, files, stems, val_files, val_stems))
    return plans


def _part(val: Split, name: str, predicted: bool) -> Split | None:
    """What of a val split one input needs: nothing of the other segmentors' predictions."""
    if not predicted:
        return Split(val.images, val.masks)
    return Split(val.images, val.masks, {name: val.predictions[name]}) if name in val.predictions else None


def _measure(
    plan: Plan, args: argparse.Namespace, fixed: dict[str, Method], advance: Callable[[], None]
) -> InputResult:
    methods: dict[str, Method] = {SEGMENTOR: segmentor_alone}
    labels = {
        SEGMENTOR: "segmentor alone",
        "bilinear": "bilinear upsampling",
        "guided": f"guided filter r {GUIDED_RADIUS}, eps {GUIDED_EPS:g}",
        "single": "ddps, single pass",
        "refined": "ddps",
    }
    for name in args.methods:
        if name == "bilinear" and plan.input_name not in ROUGH:
            continue  # the segmentor alone is that already
        if name == "densecrf":
            preset, how = _choose_preset(plan, args, advance)
            methods[name], labels[name] = dense_crf(preset), f"DenseCRF {preset} ({how})"
        else:
            methods[name] = fixed[name]
    figures = _compare(methods, plan, plan.files, plan.stems, args.kind, advance)
    thin = [index for index in range(plan.data.space.num_classes or 0) if plan.data.class_name(index) in args.thin]
    names = {index: plan.data.class_name(index) for index in thin}
    return InputResult(plan.data.name, plan.input_name, len(plan.stems), figures, labels, names)


def _choose_preset(plan: Plan, args: argparse.Namespace, advance: Callable[[], None]) -> tuple[CrfPreset, str]:
    """The preset with the best mIoU + mBIoU on val, where there is a choice, and how it was chosen."""
    if plan.val_files is None:
        return args.densecrf or CRF_PRESETS[0], "default" if args.densecrf is None else "given"
    methods = {str(preset): dense_crf(preset) for preset in CRF_PRESETS}
    figures = _compare(methods, plan, plan.val_files, plan.val_stems, args.kind, advance)
    best = max(CRF_PRESETS, key=lambda preset: figures[str(preset)].miou + figures[str(preset)].mbiou)
    return best, f"best of {len(CRF_PRESETS)} on val"


def _compare(
    methods: dict[str, Method],
    plan: Plan,
    files: SplitFiles,
    stems: tuple[str, ...],
    kind: AnyKind,
    advance: Callable[[], None],
) -> dict[str, Figures]:
    space = plan.data.space
    assert space.num_classes is not None  # read_sets refuses sets without
    comparison = Comparison(methods, space.num_classes, space.ignore_index)
    for stem in stems:
        case = read_case(plan.data, files, plan.input_name, stem, kind)
        try:
            comparison.add(case)
        except (InputError, OSError) as error:
            raise name_item(error, f"{plan.data.name}, {plan.input_name}, {stem}") from None
        advance()
    return comparison.figures()


def _evenly(stems: tuple[str, ...], count: int) -> tuple[str, ...]:
    return stems if len(stems) <= count else tuple(stems[index * len(stems) // count] for index in range(count))


def _check_thin(thin: Sequence[str], sets: Sequence[DataSet]) -> None:
    known = {data.class_name(index) for data in sets for index in range(data.space.num_classes or 0)}
    unknown = [name for name in thin if name not in known]
    if unknown:
        raise InputError("--thin with classes of the sets", ", ".join(unknown), f"some of {', '.join(sorted(known))}")


def _any_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _names(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = _any_names(text)
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(allowed)}, got {text!r}")
        # always in one order, which is that of the table
        return tuple(name for name in allowed if name in names)

    return parse


def _preset(text: str) -> CrfPreset:
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected three whole numbers such as {CRF_PRESETS[0]}, got {text!r}")
    return CrfPreset(*map(int, parts))
