"""Folders of images, masks and, optionally, a segmentor's predictions: the data sets of a run.

A data set is a folder `SET/{train,val}/{images,masks}` with one stem per pair, or `SET/{images,masks}` without
splits, and `SET/classes.json` (`classes`, `num_classes`, `ignore_index`). Predictions lie in `ROOT/{train,val}`,
`ROOT/NAME/{train,val}` or, for several data sets, `ROOT/SET/NAME/{train,val}`, for sets without splits in those folders
without `train`: `<stem>.npz`, `.npy` or `.png` at any resolution. They should come
from a segmentor that did not train on these images (`examples/out_of_fold.py`). A `classes.json` beside `train`
whose `merge` lists a new index for every class says that the segmentor knows these merged classes only.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..predictions import MAX_CLASSES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
PREDICTION_SUFFIXES = (".npz", ".npy", ".png")
IGNORE = 255
"""Void in every crop, whatever the data set calls it."""
FEWEST_TO_SPLIT, FEWEST_TO_TEACH = 5, 10


@dataclass
class Source:
    """One segmentor's predictions for one split."""

    name: str
    files: dict[str, Path]
    merge: Tensor | None  # (K,) new index of each class, or None


@dataclass
class DataSet:
    """One split of one data set."""

    name: str
    pairs: list[tuple[Path, Path]]
    num_classes: int
    ignore_index: int
    names: tuple[str, ...] = ()
    sources: list[Source] = field(default_factory=list)


def read_data_set(folder: Path, split: str, predictions: Path | None, several: bool = False) -> DataSet:
    """Lists one split of a data set.

    Args:
        folder: the data set.
        split: "train" or "val".
        predictions: root of the predictions, or None.
        several: more than one data set shares this root, so its predictions lie in a subfolder of the set's name.

    Raises:
        InputError: no such folder, an image without a mask, no classes.json that fits.
    """
    flat = split == "train" and not (folder / split).is_dir() and (folder / "images").is_dir()
    base = folder if flat else folder / split
    images, masks = base / "images", base / "masks"
    for path in (images, masks):
        if not path.is_dir():
            raise InputError("a data set SET/{train,val}/{images,masks}", f"no folder {path}", "this layout")
    pairs = []
    for path in sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        mask = masks / f"{path.stem}.png"
        if not mask.is_file():
            raise InputError(f"a mask for every image in {images}", f"no {mask.name}", f"adding it to {masks}")
        pairs.append((path, mask))
    if not pairs:
        raise InputError(f"images in {images}", "none", f"files ending in {', '.join(IMAGE_SUFFIXES)}")
    about = _read_classes(folder / "classes.json")
    data = DataSet(folder.name, pairs, *about)
    if predictions is not None:
        stems = {p.stem for p, _ in pairs}
        data.sources = _find_sources(predictions, folder.name, split, several, stems, about[0], flat)
    return data


def hold_out(data: DataSet, share: float) -> tuple[DataSet, DataSet]:
    """A data set in two: images to train on, and every n-th to validate on; all to train on where there are under 5.

    Args:
        data: the set.
        share: of the images to validate on, below 1; 0 for none.
    """
    count = round(share * len(data.pairs)) if len(data.pairs) >= FEWEST_TO_SPLIT else 0
    kept = {int((index + 0.5) * len(data.pairs) / count) for index in range(count)}
    parts: tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]] = ([], [])
    for index, pair in enumerate(data.pairs):
        parts[index in kept].append(pair)
    return replace(data, pairs=parts[0]), replace(data, pairs=parts[1])


def taught_images(count: int, share: float) -> tuple[list[int], list[int]]:
    """Places of the images that teach classes, and of those that are refined: the same where there are under 10.

    They take turns in runs of neighbours, since frames of a video are alike.

    Args:
        count: images.
        share: that teach.
    """
    if count < FEWEST_TO_TEACH or share >= 1:
        return list(range(count)), list(range(count))
    turns = 2
    bounds = [
        (round(count * t / turns), round(count * (t + share) / turns), round(count * (t + 1) / turns))
        for t in range(turns)
    ]
    taught = [index for start, middle, _ in bounds for index in range(start, middle)]
    return taught, [index for _, middle, end in bounds for index in range(middle, end)]


def _read_classes(path: Path) -> tuple[int, int, tuple[str, ...]]:
    hint = '{"classes": ["road", …], "num_classes": 11, "ignore_index": 255}'
    try:
        about = json.loads(path.read_text())
        count, ignore_index = int(about["num_classes"]), int(about.get("ignore_index", IGNORE))
        if not 1 <= count <= MAX_CLASSES:
            raise ValueError(f"{count} classes")
        return count, ignore_index, tuple(map(str, about.get("classes", ())))
    except FileNotFoundError:
        raise InputError("a classes.json beside train/", f"no {path}", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} with num_classes", f"{type(error).__name__}: {error}", hint) from None


def _read_merge(path: Path, num_classes: int) -> Tensor | None:
    """(K,) new index of every class, or None where the file has no such rule."""
    try:
        rule = json.loads(path.read_text()).get("merge")
        merge = None if rule is None else torch.tensor(rule, dtype=torch.long)
        fits = merge is None or (merge.shape == (num_classes,) and int(merge.min()) >= 0 and int(merge.max()) < IGNORE)
    except (ValueError, TypeError, RuntimeError, AttributeError, OverflowError):  # RuntimeError: nested too deep, too
        fits = False
    if not fits:
        raise InputError(
            f"{path} whose merge gives a new index to each of {num_classes} classes", "another rule", "[0, 0, 1, ...]"
        )
    return merge


def _find_sources(
    root: Path, name: str, split: str, several: bool, stems: set[str], num_classes: int, flat: bool
) -> list[Source]:
    if not root.is_dir():
        raise InputError("a folder with predictions", f"no folder {root}", "ROOT/train/<stem>.npz")
    base = root / name if (root / name).is_dir() else root
    if base is root and several:
        return []
    sources = []
    for folder in [base, *sorted(p for p in base.iterdir() if p.is_dir())]:
        place = folder / split
        if flat and not place.is_dir() and folder.name != "val":
            place = folder
        if not place.is_dir():
            continue
        found = sorted(p for p in place.iterdir() if p.suffix.lower() in PREDICTION_SUFFIXES)
        files = {p.stem: p for p in found}
        strangers = sorted(set(files) - stems)
        if strangers:
            raise InputError(
                f"predictions in {place} for images of the {split} split",
                f"{len(strangers)} without an image, such as {strangers[0]}",
                "the same stems as the images, and the same split",
            )
        merge = None
        if (folder / "classes.json").is_file():
            merge = _read_merge(folder / "classes.json", num_classes)
        if files:
            sources.append(Source(folder.name, files, merge))
    if not sources and split == "train":
        raise InputError(f"predictions of the {split} split in {root}", "none", f"{base / split}/<stem>.npz")
    return sources
