"""The file that says what a benchmark measures on, and the files of its sets."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..config import LabelSpace
from ..datasets import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_stem, read_classes
from ..errors import InputError
from .pairs import PREDICTION_SUFFIXES, check_partners

EXAMPLE = (
    '{"sets": [{"name": "camvid", "images": DIR, "masks": DIR, "classes": FILE, "predictions": {"cgnet": DIR}, '
    '"val": {"images": DIR, "masks": DIR, "predictions": {"cgnet": DIR}}}]}'
)


@dataclass(frozen=True)
class Split:
    """Images with true masks and, for each segmentor, its predictions.

    Attributes:
        images, masks: folders.
        predictions: name of a segmentor → folder.
    """

    images: Path
    masks: Path
    predictions: dict[str, Path] = field(default_factory=dict)

    def files(self) -> "SplitFiles":
        """Pairs files up by their stem.

        Returns:
            What every segmentor has predicted; without a segmentor, what has a mask.

        Raises:
            InputError: a folder that is not there or empty, a prediction without an image or a mask, a mask without
                an image where there are no predictions, or no image that all segmentors have predicted.
        """
        images = files_by_stem(self.images, IMAGE_SUFFIXES, "images")
        masks = files_by_stem(self.masks, MASK_SUFFIXES, "masks")
        predictions = {
            name: files_by_stem(folder, PREDICTION_SUFFIXES, f"predictions of {name}")
            for name, folder in self.predictions.items()
        }
        stems = set(masks)
        if not predictions and not stems <= set(images):
            alone = min(stems - set(images))
            got = f"none for {masks[alone].name}"
            raise InputError(f"an image in {str(self.images)!r} for every mask", got, "adding it, or moving it away")
        for files in predictions.values():
            check_partners(files, images, "an image")
            check_partners(files, masks, "a mask")
            stems &= set(files)
        if not stems:
            got = f"none that {', '.join(predictions)} have in common"
            raise InputError("images that every segmentor of a set has predicted", got, "a set for each of them")
        return SplitFiles(images, masks, predictions, tuple(sorted(stems)))


@dataclass(frozen=True)
class SplitFiles:
    """Stem → file, and the stems to measure on, in order."""

    images: dict[str, Path]
    masks: dict[str, Path]
    predictions: dict[str, dict[str, Path]]
    stems: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """A split to measure on and, where there is one, a split to choose parameters on.

    Attributes:
        name: in the table.
        split: what is measured on.
        space: classes, with their number.
        val: None, or what parameters may be chosen on.
    """

    name: str
    split: Split
    space: LabelSpace
    val: Split | None = None

    def class_name(self, index: int) -> str:
        return self.space.names[index] if self.space.names else str(index)


def read_sets(path: Path) -> list[DataSet]:
    """Reads the sets of a JSON file; the paths in it are relative to the folder of the file.

    Raises:
        InputError: no such file, no JSON of the form `EXAMPLE`, or classes that `read_classes` refuses.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("a file of sets", f"{str(path)!r}, which does not exist", "checking the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} as JSON", str(error)[:120], EXAMPLE) from None
    entries = _keys(data, f"{path}", ("sets",))["sets"]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} with a list of sets", repr(entries)[:60], EXAMPLE)
    return [_read_set(entry, path.parent, f"{path}: set {index}") for index, entry in enumerate(entries, 1)]


def _read_set(data: object, root: Path, where: str) -> DataSet:
    entry = _keys(data, where, ("name", "images", "masks", "classes"), ("predictions", "val"))
    name, classes = _text(entry["name"], f"{where}, name"), _text(entry["classes"], f"{where}, classes")
    space = read_classes(root / classes)
    if space.num_classes is None:
        raise InputError(f"num_classes in {classes}", "none", "adding it, or the names as classes")
    val = None
    if "val" in entry:
        inner = _keys(entry["val"], f"{where}, val", ("images", "masks"), ("predictions",))
        val = _read_split(inner, root, f"{where}, val")
    return DataSet(name, _read_split(entry, root, where), space, val)


def _read_split(entry: dict[str, object], root: Path, where: str) -> Split:
    predictions = entry.get("predictions", {})
    if not isinstance(predictions, dict):
        raise InputError(f"{where}, predictions as segmentor → folder", repr(predictions)[:60], EXAMPLE)
    folders = {name: root / _text(folder, f"{where}, {name}") for name, folder in predictions.items()}
    images, masks = (root / _text(entry[key], f"{where}, {key}") for key in ("images", "masks"))
    return Split(images, masks, folders)


def _keys(data: object, where: str, needed: tuple[str, ...], others: tuple[str, ...] = ()) -> dict[str, object]:
    if not isinstance(data, dict) or not set(needed) <= set(data) <= {*needed, *others}:
        got = ", ".join(data) or "no keys" if isinstance(data, dict) else type(data).__name__
        may = f", and if wanted {', '.join(others)}" if others else ""
        raise InputError(f"{where} with the keys {', '.join(needed)}{may}", got[:120], EXAMPLE)
    return data


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} as text", repr(value)[:60], EXAMPLE)
    return value
