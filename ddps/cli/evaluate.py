"""`ddps evaluate`: mIoU, mBIoU and accuracy of a folder of predictions, before and after refinement."""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import LabelSpace
from ..errors import InputError
from ..inputs import load_image
from ..metrics import SegmentationMetrics
from ..predictions import AnyKind, load_prediction, read_prediction_file
from ..progress import Progress
from ..refiner import DDPSRefiner
from .options import add_refine_options, load_refiner, refine_one, whole
from .pairs import IMAGE_SUFFIXES, MASK_SUFFIXES, PREDICTION_SUFFIXES, check_partners, files_by_stem, name_item
from .report import check_new, percent, table, to_json, write_text


@dataclass(frozen=True)
class Item:
    """One image with its true mask and its prediction."""

    image: Path
    mask: Path
    prediction: Path


@dataclass(frozen=True)
class Score:
    """One image's figures, and its seconds of refinement."""

    stem: str
    base: dict[str, float]
    refined: dict[str, float]
    changed: float
    seconds: float


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure predictions against true masks, before and after refinement",
        description="Measures predictions before and after refinement. Files pair up by their stem; images without a "
        "prediction are left out and counted, predictions without an image or a mask are an error.",
    )
    for name, what in (("images", "images"), ("masks", "true masks, .png"), ("predictions", ".npz, .npy or .png")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=what)
    parser.add_argument("--classes", type=Path, metavar="FILE", help="JSON with num_classes, classes and ignore_index")
    add_refine_options(parser)
    parser.add_argument("--limit", type=whole(1, 10**9), metavar="N", help="measure the first N predictions only")
    parser.add_argument("--per-image", type=Path, metavar="FILE", help="also write every image's figures, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --per-image")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.per_image is not None:
        check_new(args.per_image, args.overwrite)
    items, without_prediction = _find_items(args)
    space = read_classes(args.classes) if args.classes is not None else LabelSpace()
    items = dict(list(items.items())[: args.limit])
    classes = space.num_classes or _count_classes(items, args.kind, space.ignore_index)
    refiner = load_refiner(args)
    base = SegmentationMetrics(classes, space.ignore_index)
    refined = SegmentationMetrics(classes, space.ignore_index)
    scores = []
    bar = Progress(len(items), "evaluating")
    for stem, item in items.items():
        try:
            scores.append(_measure(refiner, args, stem, item, base, refined))
        except (InputError, OSError) as error:
            raise name_item(error, stem) from None
        bar.advance()
    report = {
        "images": len(items),
        "without_prediction": without_prediction,
        "base": base.as_dict(),
        "refined": refined.as_dict(),
        "per_class": _per_class(space.names, base, refined),
        "seconds_per_image": float(np.mean([score.seconds for score in scores])),
    }
    if args.per_image is not None:
        rows = [vars(score) for score in scores]
        write_text(to_json({"images": rows}) + "\n", args.per_image, args.overwrite)
    print(to_json(report) if args.json else _text(report, base, refined, space.names))
    return 0


def read_classes(path: Path) -> LabelSpace:
    """Reads a `classes.json`: `num_classes`, and if given `classes` (names) and `ignore_index` (default 255).

    Raises:
        InputError: no such file, no JSON object, or values that do not fit together.
    """
    hint = '{"classes": ["road", ...], "num_classes": 11, "ignore_index": 255}'
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names, ignore = tuple(data.get("classes", ())), data.get("ignore_index", 255)
        count = data.get("num_classes", len(names) or None)
    except FileNotFoundError:
        raise InputError("a classes.json", f"{str(path)!r}, which does not exist", "checking the path") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} as a JSON object", str(error)[:120], hint) from None
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (count, ignore))
    if not whole or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} with whole numbers, and classes as a list of names", "other values", hint)
    space = LabelSpace(count, names, ignore_index=ignore)
    space.validate()
    return space


def _find_items(args: argparse.Namespace) -> tuple[dict[str, Item], int]:
    images = files_by_stem(args.images, IMAGE_SUFFIXES, "images")
    masks = files_by_stem(args.masks, MASK_SUFFIXES, "masks")
    predictions = files_by_stem(args.predictions, PREDICTION_SUFFIXES, "predictions")
    check_partners(predictions, images, "an image")
    check_partners(predictions, masks, "a mask")
    items = {stem: Item(images[stem], masks[stem], path) for stem, path in predictions.items()}
    return items, len(images) - len(predictions)


def _count_classes(items: dict[str, Item], kind: AnyKind, ignore_index: int) -> int:
    """K of the predictions: their channels, or for label maps the largest id + 1 of all of them."""
    most = 0
    for stem, item in items.items():
        try:
            values, found = read_prediction_file(item.prediction)
            prediction = load_prediction(values, _native_size(values), _kind(found, kind), ignore_index)
        except (InputError, OSError) as error:
            raise name_item(error, stem) from None
        most = max(most, prediction.num_classes)
        if prediction.kind != "labels":
            break
    return most


def _native_size(values: np.ndarray) -> tuple[int, int]:
    return (int(values.shape[-2]), int(values.shape[-1])) if values.ndim >= 2 else (1, 1)


def _kind(found: AnyKind, asked: AnyKind) -> AnyKind:
    """What the file says goes before what the options say about files that leave it open."""
    return asked if found == "auto" else found


def _measure(
    refiner: DDPSRefiner,
    args: argparse.Namespace,
    stem: str,
    item: Item,
    base: SegmentationMetrics,
    refined: SegmentationMetrics,
) -> Score:
    classes, ignore_index = base.confusion.num_classes, base.confusion.ignore_index
    target, _ = read_prediction_file(item.mask)
    image = load_image(item.image)
    size = (int(image.shape[1]), int(image.shape[2]))
    if target.shape != size:
        raise InputError(f"a mask of the image's size {size}", str(target.shape), "masks at the size of their images")
    values, found = read_prediction_file(item.prediction)
    kind = _kind(found, args.kind)
    before = load_prediction(values, size, kind, ignore_index, classes).argmax().numpy()
    start = time.perf_counter()
    answer = refine_one(refiner, args, image, values, kind, ignore_index=ignore_index, num_classes=classes)
    seconds = time.perf_counter() - start
    after = np.asarray(answer.labels)
    scores = []
    for labels, total in ((before, base), (after, refined)):
        single = SegmentationMetrics(classes, ignore_index)
        single.update(labels, target)
        scores.append(single.as_dict())
        _add(total, single)
    return Score(stem, scores[0], scores[1], 100.0 * float((before != after).mean()), seconds)


def _add(total: SegmentationMetrics, single: SegmentationMetrics) -> None:
    total.confusion.counts += single.confusion.counts
    total.boundary.intersection += single.boundary.intersection
    total.boundary.union += single.boundary.union


def _class_name(names: tuple[str, ...], index: int) -> str:
    return names[index] if names else str(index)


def _per_class(
    names: tuple[str, ...], base: SegmentationMetrics, refined: SegmentationMetrics
) -> list[dict[str, object]]:
    parts = {"base": base, "refined": refined}
    ious = {
        part: zip(metrics.confusion.per_class_iou.tolist(), metrics.boundary.per_class_iou.tolist(), strict=True)
        for part, metrics in parts.items()
    }
    figures = zip(ious["base"], ious["refined"], strict=True)
    return [
        {
            "class": _class_name(names, index),
            "base": {"iou": before[0], "biou": before[1]},
            "refined": {"iou": after[0], "biou": after[1]},
        }
        for index, (before, after) in enumerate(figures)
    ]


def _text(
    report: dict[str, object], base: SegmentationMetrics, refined: SegmentationMetrics, names: tuple[str, ...]
) -> str:
    before, after = base.as_dict(), refined.as_dict()
    keys = ("miou", "mbiou", "accuracy")
    rows = [
        ["%", "mIoU", "mBIoU", "accuracy"],
        ["base", *(percent(before[key]) for key in keys)],
        ["refined", *(percent(after[key]) for key in keys)],
        ["change", *(percent(after[key] - before[key], signed=True) for key in keys)],
    ]
    classes = [["class", "IoU", "refined", "BIoU", "refined"]]
    columns = [
        metrics.per_class_iou for metrics in (base.confusion, refined.confusion, base.boundary, refined.boundary)
    ]
    for index in range(base.confusion.num_classes):
        figures = [float(column[index]) for column in columns]
        if not all(np.isnan(figures)):
            classes.append([_class_name(names, index), *map(percent, figures)])
    left_out = f", {report['without_prediction']} without a prediction" if report["without_prediction"] else ""
    head = f"{report['images']} images{left_out}, {report['seconds_per_image']:.2f} s per image"
    return f"{head}\n\n{table(rows)}\n\n{table(classes)}"
