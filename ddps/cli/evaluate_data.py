"""What `ddps evaluate` measures on: three folders of files, or a data set in a layout of its own."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ..config import LabelSpace
from ..datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, Layout, files_by_stem, list_pairs, read_classes
from ..errors import InputError
from ..predictions import AnyKind, load_prediction, read_prediction_file
from .pairs import PREDICTION_SUFFIXES, check_partners, name_item


@dataclass(frozen=True)
class Item:
    """One image with its true mask and, if there is one, the segmentor's prediction."""

    image: Path
    mask: Path
    prediction: Path | None


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What is measured on.

    Attributes:
        items: stem of the image → its files.
        space: the classes, their names and void.
        num_classes: K; None where no file says it.
        read_mask: (H, W) classes or void of a mask's file.
        without_prediction: how many images are left out for want of a prediction.
    """

    items: dict[str, Item]
    space: LabelSpace
    num_classes: int | None
    read_mask: Callable[[Path], np.ndarray]
    without_prediction: int = 0


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where images, true masks and predictions are."""
    for name, what in (("images", "images"), ("masks", "true masks, .png"), ("predictions", ".npz, .npy or .png")):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=what)
    parser.add_argument("--classes", type=Path, metavar="FILE", help="JSON with num_classes, classes and ignore_index")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a data set, instead of --images, --masks, --classes")
    parser.add_argument("--layout", choices=get_args(Layout), default="auto", help="of --data (default: auto)")
    parser.add_argument("--split", default="val", metavar="NAME", help="of --data: train, val or test (default: val)")


def find_data(args: argparse.Namespace) -> EvaluationSet:
    """Lists what the options name.

    Args:
        args: of `add_data_options`, and `limit`.

    Raises:
        InputError: options that do not go together, folders that are not there, or files without their partners.
    """
    if args.data is not None:
        if args.images is not None or args.masks is not None or args.classes is not None:
            raise InputError("--data, or --images, --masks and --classes", "both", "one of them")
        folder = list_pairs(args.data, args.split, args.layout)
        space = LabelSpace(folder.num_classes, folder.names, folder.palette, folder.ignore_index)
        pairs = {image.stem: (image, mask) for image, mask in folder.pairs}
        items, left_out = _with_predictions(pairs, args.predictions, args.limit)
        return EvaluationSet(items, space, folder.num_classes, folder.read_mask, left_out)
    if args.images is None or args.masks is None:
        missing = " and ".join(f"--{name}" for name in ("images", "masks") if getattr(args, name) is None)
        raise InputError("--data ROOT, or --images and --masks", f"no {missing}", "adding it")
    images = files_by_stem(args.images, IMAGE_SUFFIXES, "images")
    masks = files_by_stem(args.masks, MASK_SUFFIXES, "masks")
    if args.predictions is None:
        check_masks(images, masks)
    else:
        predictions = files_by_stem(args.predictions, PREDICTION_SUFFIXES, "predictions")
        check_partners(predictions, images, "an image")
        check_partners(predictions, masks, "a mask")
    pairs = {stem: (path, masks[stem]) for stem, path in images.items() if stem in masks}
    items, left_out = _with_predictions(pairs, args.predictions, args.limit)
    left_out += len(images) - len(pairs)
    space = read_classes(args.classes) if args.classes is not None else LabelSpace()
    classes = space.num_classes
    if classes is None and args.predictions is not None:
        classes = _count_classes(items, args.kind, space.ignore_index)
    return EvaluationSet(items, space, classes, _read_plain_mask, left_out)


def kind_of(found: AnyKind, asked: AnyKind) -> AnyKind:
    """What the file says goes before what the options say about files that leave it open."""
    return asked if found == "auto" else found


def check_masks(images: dict[str, Path], masks: dict[str, Path]) -> None:
    """Refuses images without a true mask.

    Raises:
        InputError: as said.
    """
    alone = sorted(set(images) - set(masks))
    if alone:
        example = images[alone[0]].name
        got = f"{len(alone)} of {len(images)} without one, such as {example}"
        raise InputError("a mask of the same stem for every image", got, f"adding it, or moving {example} away")


def _with_predictions(
    pairs: dict[str, tuple[Path, Path]], folder: Path | None, limit: int | None
) -> tuple[dict[str, Item], int]:
    if folder is None:
        items = {stem: Item(*pair, None) for stem, pair in pairs.items()}
        return dict(list(items.items())[:limit]), 0
    predictions = files_by_stem(folder, PREDICTION_SUFFIXES, "predictions")
    check_partners(predictions, pairs, "an image")
    items = {stem: Item(*pairs[stem], path) for stem, path in predictions.items()}
    return dict(list(items.items())[:limit]), len(pairs) - len(items)


def _read_plain_mask(path: Path) -> np.ndarray:
    return read_prediction_file(path)[0]


def _count_classes(items: dict[str, Item], kind: AnyKind, ignore_index: int) -> int:
    """K of the predictions: their channels, or for label maps the largest id + 1 of all of them."""
    most = 0
    for stem, item in items.items():
        assert item.prediction is not None  # asked for only where there are predictions
        try:
            values, found = read_prediction_file(item.prediction)
            native = (int(values.shape[-2]), int(values.shape[-1])) if values.ndim >= 2 else (1, 1)
            prediction = load_prediction(values, native, kind_of(found, kind), ignore_index)
        except (InputError, OSError) as error:
            raise name_item(error, stem) from None
        most = max(most, prediction.num_classes)
        if prediction.kind != "labels":
            break
    return most
