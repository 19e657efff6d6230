"""`ddps benchmark calibration`: whether confidence means something, before and after, on the same inputs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from ..benchmark import Case
from ..calibration import Calibration
from ..calibration_plot import draw_calibration
from ..canvas import two_best
from ..errors import InputError
from ..outputs import Refinement
from ..predictions import AnyKind
from ..progress import Progress
from ..refiner import DDPSRefiner
from ..rough import import_cv2
from .benchmark_inputs import ROUGH, read_case
from .benchmark_sets import DataSet, SplitFiles, read_sets
from .options import add_model_options, load_refiner, percentage, whole
from .pairs import name_item
from .report import check_new, check_picture, percent, table, to_json, write_picture

WHO = ("segmentor", "refined")
COLUMNS = {
    "error": "error",
    "confidence": "confidence",
    "ece": "ECE",
    "auroc": "AUROC",
    "aurc": "AURC",
    "error_at_90": "error at 90",
    "caught_by_10": "caught by 10",
}
LEGEND = (
    "All in percent, over all pixels of a set that are not void. error: wrong pixels. confidence: its mean. ECE: "
    "expected calibration error, 15 bins. AUROC: chance that a wrong pixel is more uncertain than a right one; every "
    "row against its own errors. AURC: mean error over all coverages. error at 90: wrong ones among the 90 % least "
    "uncertain pixels. caught by 10: share of the wrong pixels that are among the 10 % most uncertain. A label map by "
    "itself is taken as certain."
)


@dataclass(frozen=True)
class _Plan:
    data: DataSet
    input_name: str
    files: SplitFiles
    stems: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.data.name}, {self.input_name} ({len(self.stems)})"


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser(
        "calibration",
        help="whether confidence and uncertainty mean something",
        description="Compares the confidence of segmentors with that of our refiner on the same inputs: how far it is "
        "from the share of right pixels, and how well uncertainty finds wrong ones. --sets is read as by "
        "`ddps benchmark quality`.",
    )
    parser.add_argument(
        "--sets", type=Path, action="append", required=True, metavar="FILE", help="JSON of the sets; may be repeated"
    )
    parser.add_argument(
        "--rough", choices=ROUGH, action="append", default=[], help="also such rough masks; may be repeated"
    )
    parser.add_argument("--val", action="store_true", help="measure on the sets' val")
    add_model_options(parser)
    parser.add_argument(
        "--num-samples", type=whole(1, 4096), default=1, metavar="N", help="chains to average per image (default: 1)"
    )
    parser.add_argument(
        "--hedge",
        type=percentage,
        metavar="PERCENT",
        help="share of the segmentor's own probabilities beside the refined ones (default: the model's)",
    )
    parser.add_argument("--every", type=whole(1, 10**9), default=1, metavar="N", help="every N-th image of a set")
    parser.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="then the first N of them")
    parser.add_argument(
        "--kind", choices=get_args(AnyKind), default="auto", help="what predictions are, where their file does not say"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw reliability, and error against coverage: .png or .jpg"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --plot")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        check_picture(args.plot)
        check_new(args.plot, args.overwrite)
    plans = [plan for path in args.sets for data in read_sets(path) for plan in _plans(data, args)]
    if "polygon" in args.rough:
        import_cv2("--rough polygon")
    refiner = load_refiner(args)
    if args.hedge is not None:
        inference = replace(refiner.config.inference, hedge=args.hedge / 100)
        refiner.config = replace(refiner.config, inference=inference)
    bar = Progress(sum(len(plan.stems) for plan in plans), "measuring")
    results = []
    for plan in plans:
        found = {who: Calibration(plan.data.space.ignore_index) for who in WHO}
        for stem in plan.stems:
            case = read_case(plan.data, plan.files, plan.input_name, stem, args.kind)
            try:
                _measure(refiner, case, args.num_samples, found)
            except InputError as error:
                raise name_item(error, f"{plan.data.name}, {plan.input_name}, {stem}") from None
            bar.advance()
        results.append(found)
    if args.plot is not None:
        titled = [(plan.title, found) for plan, found in zip(plans, results, strict=True)]
        write_picture(draw_calibration(titled), args.plot, args.overwrite)
    head = {
        "model": args.model,
        "hedge": refiner.config.inference.hedge,
        "num_samples": args.num_samples,
        "split": "val" if args.val else "test",
        "device": str(refiner.device),
        "threads": torch.get_num_threads(),
    }
    print(to_json(_as_json(head, plans, results)) if args.json else _as_text(head, plans, results))
    return 0


def _plans(data: DataSet, args: argparse.Namespace) -> list[_Plan]:
    split = data.val if args.val else data.split
    if split is None:
        raise InputError(f"a val in the set {data.name}", "none", "leaving --val out, or adding it")
    names = dict.fromkeys((*split.predictions, *args.rough))
    if not names:
        raise InputError(f"something to refine in the set {data.name}", "no predictions", "--rough, or predictions")
    files = split.files()
    return [_Plan(data, name, files, files.stems[:: args.every][: args.limit]) for name in names]


def _measure(refiner: DDPSRefiner, case: Case, num_samples: int, found: dict[str, Calibration]) -> None:
    known = case.prediction
    own = known.argmax()
    if known.kind == "labels":
        confidence, uncertainty = torch.ones(known.size), torch.zeros(known.size)
    else:
        best, second, _ = two_best(known.probs())
        confidence, uncertainty = best, (1 - (best - second)).clamp(0, 1)
    found["segmentor"].update(own, confidence, uncertainty, case.truth)
    refined = refiner.refine(
        case.image,
        known.native,
        kind=known.kind,
        num_samples=num_samples,
        ignore_index=known.ignore_index,
        num_classes=known.num_classes,
    )
    assert isinstance(refined, Refinement) and isinstance(refined.probs, Tensor)  # one image, torch in, torch out
    found["refined"].update(refined.labels, two_best(refined.probs)[0], refined.uncertainty, case.truth)


def _as_json(
    head: dict[str, object], plans: Sequence[_Plan], results: Sequence[dict[str, Calibration]]
) -> dict[str, object]:
    inputs = []
    for plan, found in zip(plans, results, strict=True):
        parts: dict[str, object] = {}
        for who, one in found.items():
            curve = one.detection.curve()
            parts[who] = {
                **one.as_dict(),
                "reliability": one.reliability.points(),
                "coverage": curve.coverage.tolist(),
                "error_by_coverage": curve.error.tolist(),
            }
        inputs.append({"set": plan.data.name, "input": plan.input_name, "images": len(plan.stems), **parts})
    return {**head, "inputs": inputs}


def _as_text(head: dict[str, object], plans: Sequence[_Plan], results: Sequence[dict[str, Calibration]]) -> str:
    rows: list[list[str]] = [["input", "", *COLUMNS.values()]]
    for plan, found in zip(plans, results, strict=True):
        for who, one in found.items():
            figures = one.as_dict()
            name = plan.title if who == WHO[0] else ""
            rows.append([name, who, *(percent(figures[key]) for key in COLUMNS)])
    return "\n\n".join([", ".join(f"{name} {value}" for name, value in head.items()), table(rows), LEGEND])
