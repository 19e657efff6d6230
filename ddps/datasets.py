"""Data sets on disk: pairs of images and true masks in the folder layouts that people have.

Three layouts are known:

- `folders`: `ROOT/{train,val,test}/{images,masks}`, one stem per pair, and `ROOT/classes.json`
  (`classes`, `num_classes`, `ignore_index`);
- `ade20k`: `ADEChallengeData2016/{images,annotations}/{training,validation}`, as the challenge hands it out;
- `cityscapes`: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png`, or, where
  no train ids were made, the `*_gtFine_labelIds.png` of the download.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .config import LabelSpace
from .errors import InputError
from .inputs import check_file
from .label_spaces import (
    ADE20K_NAMES,
    CITYSCAPES_LABEL_IDS,
    CITYSCAPES_MOST_LABEL_IDS,
    CITYSCAPES_NAMES,
    CITYSCAPES_PALETTE,
)
from .predictions import read_prediction_file
from .visualize import Palette, default_palette

Layout: TypeAlias = Literal["auto", "folders", "ade20k", "cityscapes"]
IntArray: TypeAlias = NDArray[np.int64]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MASK_SUFFIXES = (".png",)
VOID = 255
MAX_CLASSES_CHARACTERS = 1 << 24
ADE20K_SPLITS = {"train": "training", "val": "validation"}
"""The challenge's names of the splits that every other layout calls train and val; both names are understood."""


@dataclass(frozen=True, eq=False)
class DataFolder:
    """One split of one data set.

    Attributes:
        name: of the data set's folder.
        pairs: (image, true mask), ordered by name.
        num_classes: K of the user's label space: 150 for ADE20K, 19 for Cityscapes.
        ignore_index: label of void pixels in what `read_mask` gives.
        names: of the classes, or empty.
        palette: colour of every class.
        table: class of every pixel value in a mask file, -1 for values that must not occur; None where the files hold
            the classes themselves.
    """

    name: str
    pairs: list[tuple[Path, Path]]
    num_classes: int
    ignore_index: int
    names: tuple[str, ...]
    palette: Palette
    table: IntArray | None = None

    def read_mask(self, path: Path) -> IntArray:
        """Reads one true mask into the user's label space.

        Args:
            path: of one of `pairs`.

        Returns:
            (H, W) classes 0 .. K - 1, or `ignore_index`.

        Raises:
            InputError: the file cannot be read, or holds a value that is no class.
        """
        values, _ = read_prediction_file(path)
        labels = values
        if self.table is not None:
            known = (values >= 0) & (values < len(self.table))
            labels = np.where(known, self.table[np.where(known, values, 0)], -1)
        bad = np.unique(values[((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_index)])
        if bad.size:
            named = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
            first = 0 if self.table is None else int(np.flatnonzero(self.table == 0)[0])
            expected = f"mask {path.name} with values of {self.num_classes} classes (from {first} on) or void"
            raise InputError(expected, f"values {named}", "another layout, or masks that fit the classes")
        return labels.astype(np.int64)


def list_pairs(root: Path, split: str, layout: Layout = "auto") -> DataFolder:
    """Lists one split of a data set.

    Args:
        root: the data set; for ADE20K also the folder that ADEChallengeData2016 lies in.
        split: "train", "val" or "test"; for ADE20K also "training" and "validation".
        layout: see the module; "auto" tells by the folders that there are.

    Raises:
        InputError: no such folder or split, a layout that is not there, an image without a mask or a mask without an
            image, or no `classes.json` that fits.
    """
    if not root.is_dir():
        got = f"{str(root)!r}, which " + ("is a file" if root.exists() else "does not exist")
        raise InputError("the folder of a data set", got, "checking the path")
    inner = root / "ADEChallengeData2016"
    if inner.is_dir() and layout in ("auto", "ade20k"):
        root = inner
    return _LISTERS[_find_layout(root) if layout == "auto" else layout](root, split)


def read_classes(path: Path) -> LabelSpace:
    """Reads a `classes.json`: `num_classes`, and if given `classes` (names) and `ignore_index` (default 255).

    Raises:
        InputError: no such file, no JSON object, or values that do not fit together.
    """
    hint = '{"classes": ["road", ...], "num_classes": 11, "ignore_index": 255}'
    check_file(path, "a classes.json")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CLASSES_CHARACTERS + 1)
        if len(text) > MAX_CLASSES_CHARACTERS:
            raise InputError(f"{path} up to {MAX_CLASSES_CHARACTERS} characters", "a longer file", hint)
        data = json.loads(text)
        names, ignore = tuple(data.get("classes", ())), data.get("ignore_index", VOID)
        count = data.get("num_classes", len(names) or None)
    except InputError:
        raise
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} as a JSON object", str(error)[:120], hint) from None
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (count, ignore))
    if not whole or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} with whole numbers, and classes as a list of names", "other values", hint)
    space = LabelSpace(count, names, ignore_index=ignore)
    space.validate()
    return space


def files_by_stem(folder: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    """Lists a folder.

    Args:
        folder: searched without its subfolders; hidden files are left out.
        suffixes: of the files that count, in lower case.
        what: what the files are, in an error.

    Returns:
        Stem → file, in the order of the stems.

    Raises:
        InputError: no such folder, no such file in it, or two with one stem.
    """
    return {stem: folder / name for stem, name in names_by_stem(folder, suffixes, what).items()}


def names_by_stem(folder: Path, suffixes: tuple[str, ...], what: str) -> dict[str, str]:
    """Stem → name of the file in the folder; as `files_by_stem`, which makes a path of each."""
    if not folder.is_dir():
        got = f"{str(folder)!r}, which " + ("is a file" if folder.exists() else "does not exist")
        raise InputError(f"a folder of {what}", got, "checking the path")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _counts(entry, suffixes))
    found: dict[str, str] = {}
    for name in names:
        stem = name.rpartition(".")[0]
        if stem in found:
            got = f"{found[stem]} and {name} in {str(folder)!r}"
            raise InputError(f"one file per stem among the {what}", got, "moving one of them away")
        found[stem] = name
    if not found:
        hint = f"files ending in {', '.join(suffixes)}, directly in the folder"
        raise InputError(f"{what} in {str(folder)!r}", "none", hint)
    return dict(sorted(found.items()))


def _counts(entry: "os.DirEntry[str]", suffixes: tuple[str, ...]) -> bool:
    """Whether it is a file with one of the suffixes that is not hidden, or a link to one."""
    stem, dot, suffix = entry.name.rpartition(".")
    if not stem or stem.startswith(".") or (dot + suffix).lower() not in suffixes:
        return False
    # of a link that leads nowhere or in a circle, the entry itself may not know
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def _find_layout(root: Path) -> Literal["folders", "ade20k", "cityscapes"]:
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if (root / "images").is_dir() and (root / "annotations").is_dir():
        return "ade20k"
    if (root / "classes.json").is_file() or any((root / split / "images").is_dir() for split in ("train", "val")):
        return "folders"
    expected = "{train,val,test}/{images,masks} with classes.json, {images,annotations}/ or leftImg8bit/ and gtFine/"
    raise InputError(expected, f"none of them in {str(root)!r}", "the data set's own folder, or --layout")


def _list_folders(root: Path, split: str) -> DataFolder:
    _check_split(root, split, "SET/{train,val,test}/{images,masks}")
    images = files_by_stem(root / split / "images", IMAGE_SUFFIXES, "images")
    masks = files_by_stem(root / split / "masks", MASK_SUFFIXES, "masks")
    space = read_classes(root / "classes.json")
    assert space.num_classes is not None  # read_classes insists on it
    palette = default_palette(space.num_classes)
    return DataFolder(
        root.name, _pair(images, masks), space.num_classes, space.ignore_index, space.names, palette, None
    )


def _list_ade20k(root: Path, split: str) -> DataFolder:
    split = ADE20K_SPLITS.get(split, split)
    _check_split(root / "images", split, "ADEChallengeData2016/{images,annotations}/{training,validation}")
    images = files_by_stem(root / "images" / split, IMAGE_SUFFIXES, "images")
    masks = files_by_stem(root / "annotations" / split, MASK_SUFFIXES, "masks")
    count = len(ADE20K_NAMES)
    table = _table({VOID: VOID, 0: VOID, **{index + 1: index for index in range(count)}})
    return DataFolder(root.name, _pair(images, masks), count, VOID, ADE20K_NAMES, default_palette(count), table)


def _list_cityscapes(root: Path, split: str) -> DataFolder:
    _check_split(root / "leftImg8bit", split, "leftImg8bit/{train,val,test}/CITY")
    images = _of_cities(root / "leftImg8bit" / split, "_leftImg8bit.png")
    if not images:
        expected = f"*_leftImg8bit.png in the cities of {str(root / 'leftImg8bit' / split)!r}"
        raise InputError(expected, "none", "the folders as Cityscapes hands them out")
    count = len(CITYSCAPES_NAMES)
    own = {index: index for index in range(count)}
    masks, table = _of_cities(root / "gtFine" / split, "_gtFine_labelTrainIds.png"), _table({VOID: VOID, **own})
    if not masks:
        masks = _of_cities(root / "gtFine" / split, "_gtFine_labelIds.png")
        rest = dict.fromkeys((*range(CITYSCAPES_MOST_LABEL_IDS), VOID), VOID)
        table = _table(rest | {label_id: index for index, label_id in enumerate(CITYSCAPES_LABEL_IDS)})
    return DataFolder(root.name, _pair(images, masks), count, VOID, CITYSCAPES_NAMES, CITYSCAPES_PALETTE, table)


_LISTERS: dict[str, Callable[[Path, str], DataFolder]] = {
    "folders": _list_folders,
    "ade20k": _list_ade20k,
    "cityscapes": _list_cityscapes,
}


def _of_cities(folder: Path, suffix: str) -> dict[str, Path]:
    found = (path for path in folder.glob(f"*/*{suffix}") if not path.name.startswith("."))
    return {path.name.removesuffix(suffix): path for path in sorted(found, key=lambda path: path.name)}


def _check_split(folder: Path, split: str, layout: str) -> None:
    if (folder / split).is_dir():
        return
    there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    got = f"no folder {split!r} in {str(folder)!r}" + (f", only {', '.join(there)[:80]}" if there else "")
    raise InputError(f"the layout {layout}", got, "another split or layout")


def _pair(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[tuple[Path, Path]]:
    for ours, theirs, what in ((images, masks, "a mask for every image"), (masks, images, "an image for every mask")):
        alone = sorted(set(ours) - set(theirs))
        if alone:
            got = f"{len(alone)} of {len(ours)} without one, such as {ours[alone[0]].name}"
            raise InputError(what, got, f"adding it, or moving {ours[alone[0]].name} away")
    return [(images[stem], masks[stem]) for stem in images]


def _table(classes: Mapping[int, int]) -> IntArray:
    table = np.full(256, -1, dtype=np.int64)
    for value, index in classes.items():
        table[value] = index
    return table
