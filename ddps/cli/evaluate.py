"""`ddps evaluate`: mIoU, mBIoU and accuracy of a data set, before and after refinement, or of a full model."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..inputs import load_image
from ..metrics import SegmentationMetrics
from ..predictions import AnyKind, Prediction, load_prediction, read_prediction_file
from ..processes import processes
from ..progress import Progress
from ..protocol import AVERAGE, EvaluationProtocol, Passes, infer
from ..protocol_models import Call, as_segmentor, caller
from ..refiner import DDPSRefiner
from ..void_first import labels_to_users, probs_to_network
from .evaluate_data import EvaluationSet, Item, add_data_options, find_data, kind_of
from .evaluate_options import add_protocol_options, find_passes, find_protocol, read_steps
from .evaluate_report import BASE, REFINED, Score, as_json, as_text
from .options import add_refine_options, load_refiner, whole
from .pairs import name_item
from .report import check_new, to_json, write_text


@dataclass(frozen=True, eq=False)
class Task:
    """What is done with every image.

    Attributes:
        data: what is measured on.
        protocol: how to look at the images.
        passes: which passes of the chain are reported.
        call: the model.
        kind: what predictions are, where their file does not say.
        needs_prediction: whether the model refines predictions.
        average_base: whether answers are also averaged with the predictions.
        void_first: whether class 0 of the model is void.
    """

    data: EvaluationSet
    protocol: EvaluationProtocol
    passes: Passes
    call: Call
    kind: AnyKind
    needs_prediction: bool
    average_base: bool
    void_first: bool


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure predictions before and after refinement, or a full model, against true masks",
        description="Measures predictions before and after refinement, or a full model of the paper. Files pair up by "
        "their stem; images without a prediction are left out and counted, predictions without an image or a mask are "
        "an error.",
    )
    add_data_options(parser)
    add_refine_options(parser, read_steps, "denoising steps; 1,10,20: a chain of 20, measured after 1, 10 and 20")
    add_protocol_options(parser)
    parser.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="measure the first N images only")
    parser.add_argument("--per-class", action="store_true", help="with --data, also print every class's figures")
    parser.add_argument("--per-image", type=Path, metavar="FILE", help="also write every image's figures, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --per-image")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with processes() as group:
        args.device = group.device(args.device)
        task = group.one_then_all(lambda: _prepare(args))
        totals: dict[str, SegmentationMetrics] = {}
        scores: dict[str, Score] = {}
        mine = group.share(list(task.data.items.items()))
        bar = Progress(len(mine), "evaluating", shown=group.leads)
        for stem, item in mine:
            try:
                scores[stem] = _measure(task, stem, item, totals)
            except (InputError, OSError) as error:
                raise name_item(error, stem) from None
            bar.advance()
        parts = group.gather((totals, scores))
        return group.first(lambda: _tell(args, task.data, parts))


def _prepare(args: argparse.Namespace) -> Task:
    """What is done with every image.

    Raises:
        InputError: options, files and weights that do not go together.
    """
    if args.per_image is not None:
        check_new(args.per_image, args.overwrite)
    if args.average_base and args.predictions is None:
        raise InputError("--predictions to average with", "--average-base alone", "the base segmentor's predictions")
    protocol, passes = find_protocol(args), find_passes(args)
    data = find_data(args)
    refiner = load_refiner(args, full_models=True)
    full = refiner.config.backbone is not None
    if not full and args.predictions is None:
        expected = f"--predictions, which {args.model} refines"
        raise InputError(expected, "none", "the folder of a segmentor's predictions, or a full model")
    data = _with_classes_of(refiner, args.model, data)
    call = caller(
        refiner,
        passes,
        preset=args.preset,
        sampler=args.sampler,
        seed=args.seed,
        num_samples=args.num_samples,
        guidance_scale=args.guidance_scale,
        early_exit=args.early_exit,
        tile=args.tile,
    )
    void_first = refiner.config.labels.void_first
    return Task(data, protocol, passes, call, args.kind, not full, args.average_base, void_first)


def _tell(
    args: argparse.Namespace,
    data: EvaluationSet,
    parts: Sequence[tuple[dict[str, SegmentationMetrics], dict[str, Score]]],
) -> int:
    """Puts the processes' counts together, which are whole numbers and so add up exactly, and says what they are."""
    totals: dict[str, SegmentationMetrics] = {}
    by_stem: dict[str, Score] = {}
    for counted, scored in parts:
        by_stem |= scored
        for name, metrics in counted.items():
            total = totals.setdefault(name, SegmentationMetrics(metrics.confusion.num_classes))
            total.add(metrics)
    scores = [by_stem[stem] for stem in data.items]
    if args.per_image is not None:
        write_text(to_json({"images": [score.as_dict() for score in scores]}) + "\n", args.per_image, args.overwrite)
    seconds = float(np.mean([score.seconds for score in scores]))
    if args.json:
        print(to_json(as_json(totals, data, seconds)))
    else:
        print(as_text(totals, data, seconds, per_class=args.per_class or args.data is None))
    return 0


def _with_classes_of(refiner: DDPSRefiner, model: str, data: EvaluationSet) -> EvaluationSet:
    """What only the model knows of the classes is taken from it; what both know must agree."""
    labels = refiner.config.labels
    if data.num_classes is None:
        if labels.num_classes is None:
            raise InputError("the number of classes", "neither --classes nor a model that knows", "--classes FILE")
        return replace(data, num_classes=labels.num_classes, space=labels)
    if labels.num_classes not in (None, data.num_classes):
        expected = f"a data set of {labels.num_classes} classes, as {model} has"
        raise InputError(expected, str(data.num_classes), "another model")
    return data


def _measure(task: Task, stem: str, item: Item, totals: dict[str, SegmentationMetrics]) -> Score:
    classes, ignore_index = task.data.num_classes, task.data.space.ignore_index
    assert classes is not None  # _with_classes_of
    target = task.data.read_mask(item.mask)
    image = load_image(item.image)
    size = (int(image.shape[1]), int(image.shape[2]))
    if target.shape != size:
        raise InputError(f"a mask of the image's size {size}", str(target.shape), "masks at the size of their images")
    labels: dict[str, np.ndarray] = {}
    known = None
    if item.prediction is not None:
        values, found = read_prediction_file(item.prediction)
        known = load_prediction(values, size, kind_of(found, task.kind), ignore_index, classes)
        labels[BASE] = known.argmax().numpy()
    start = time.perf_counter()
    labels |= _answers(task, image, known)
    seconds = time.perf_counter() - start
    figures = {}
    for name, answer in labels.items():
        single = SegmentationMetrics(classes, ignore_index)
        single.update(answer, target)
        figures[name] = single.as_dict()
        total = totals.setdefault(name, SegmentationMetrics(classes, ignore_index))
        total.add(single)
    changed = 100.0 * float((labels[BASE] != labels[REFINED]).mean()) if BASE in labels else float("nan")
    return Score(stem, figures, changed, seconds)


def _answers(task: Task, image: Tensor, known: Prediction | None) -> dict[str, np.ndarray]:
    """Name of a row → (H, W) labels; `REFINED` is what the last step gives."""
    size = (int(image.shape[1]), int(image.shape[2]))
    given = known if task.needs_prediction else None
    last = [name for name in task.passes.names if name != AVERAGE][-1]
    titles = {name: name if name == AVERAGE else f"step {name}" for name in task.passes.names} | {last: REFINED}
    if task.protocol == EvaluationProtocol() and not task.average_base and not task.passes.average:
        # The labels of a plain call need no (K, H, W) in memory.
        answers = zip(task.passes.names, task.call(image, given), strict=True)
        return {titles[name]: _to_users(task, torch.as_tensor(answer.labels)) for name, answer in answers}
    base = known.probs() if known is not None and task.average_base else None
    if base is not None and task.void_first:
        base = probs_to_network(base)
    rows: dict[str, np.ndarray] = {}
    for name, probs in infer(as_segmentor(task.call), image, task.protocol, size, task.passes, given).items():
        row = titles[name]
        rows[row] = _to_users(task, probs.argmax(0))
        if base is not None:
            rows[f"{row} + base"] = _to_users(task, (probs.cpu() + base).argmax(0))
    if given is not None and given.kind == "labels":
        void = given.void.numpy()
        rows = {row: np.where(void, given.ignore_index, labels) for row, labels in rows.items()}
    return rows


def _to_users(task: Task, labels: Tensor) -> np.ndarray:
    if task.void_first:
        labels = labels_to_users(labels, task.data.space.ignore_index)
    return labels.cpu().numpy()
