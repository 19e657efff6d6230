"""What --review adds to a folder: a list of items to look at, and a page that shows the first of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..predictions import read_prediction_file
from ..review import Row, rank
from ..review_page import PICTURES as KINDS
from ..review_page import Page, PageItem, class_name, render
from ..review_pictures import full_palette, small_pictures, tells_apart
from ..visualize import Palette
from .refine_item import Classes, Job, load
from .refine_jobs import Jobs
from .refine_labels import read_png_form
from .refine_plan import PAGE, PICTURES
from .report import write_picture, write_text

_SUFFIXES = {"image": ".jpg", "before": ".png", "after": ".png", "difference": ".jpg"}


@dataclass(frozen=True)
class Review:
    """Where and what to list.

    Attributes:
        folder: of the outputs.
        threshold: least share of changed pixels, in percent.
        most: items on the page.
        title: of the page.
    """

    folder: Path
    threshold: float
    most: int
    title: str


def write_review(review: Review, jobs: Jobs, rows: Sequence[Row], classes: Classes, workers: int) -> dict[str, object]:
    """Writes the page and its pictures, which are made from the files of the items on it.

    Args:
        review: where and what.
        jobs: at least those of the rows.
        rows: of all items.
        classes: of the items.
        workers: threads that make pictures.

    Returns:
        What summary.json says about it: all items to look at, in the order of the page.

    Raises:
        OSError: the disk takes nothing more.
    """
    compared = sum(row.changed is not None for row in rows)
    listed = rank(rows, review.threshold)
    shown = listed[: review.most]
    of_shown = jobs.named(row.name for row in shown)
    folder = review.folder / PICTURES
    _take_away(folder, {row.name for row in rows})
    if shown:
        folder.mkdir(exist_ok=True)
    palette = _choose_palette(of_shown[shown[0].name], classes) if shown else ()
    with ThreadPoolExecutor(workers) as pool:
        made = list(pool.map(lambda row: _item(review, row, of_shown[row.name], classes, palette), shown))
    items = [item for item, _ in made]
    ids: set[int] = set().union(*(found for _, found in made))
    has_void = classes.ignore_index in ids
    colours = full_palette(palette, max(ids, default=0))
    legend = {index: colours[index] for index in ids if index != classes.ignore_index}
    names = classes.space.names
    page = Page(review.title, review.threshold, len(listed), compared, items, names, legend, has_void)
    path = review.folder / PAGE
    write_text(render(page), path, overwrite=True)
    return {
        "threshold": review.threshold,
        "listed": len(listed),
        "shown": len(shown),
        "page": str(path),
        "items": [_entry(row, names) for row in listed],
    }


def _entry(row: Row, names: Sequence[str]) -> dict[str, object]:
    moves = [
        {"before": class_name(names, m.before), "after": class_name(names, m.after), "share": m.share}
        for m in row.moves
    ]
    return {"name": row.name, "changed": row.changed, "uncertainty": row.uncertainty, "moves": moves}


def _item(review: Review, row: Row, job: Job, classes: Classes, palette: Palette) -> tuple[PageItem, set[int]]:
    """An item of the page, its pictures written, and the ids that they show."""
    try:
        image, before, after = _read(job, classes)
    except (InputError, OSError):
        return PageItem(row, {}, (1, 1), None), set()
    ids = {int(index) for index in np.union1d(before, after)}
    classes_only = ids - {classes.ignore_index}
    colours = full_palette(palette, max(classes_only, default=0))
    before, after = (np.where(labels == classes.ignore_index, -1, labels) for labels in (before, after))
    pictures = small_pictures(image, before, after, (before != after) & (before != -1), colours)
    links = {}
    for kind in KINDS:
        path = review.folder / PICTURES / f"{job.name}.{kind}{_SUFFIXES[kind]}"
        write_picture(pictures[kind], path, overwrite=True)
        links[kind] = os.path.relpath(path, review.folder)
    try:
        image_link = os.path.relpath(job.image.resolve(), review.folder.resolve())
    except ValueError:  # on another drive, where Windows has no relative path to
        image_link = None
    return PageItem(row, links, pictures["image"].size, image_link), ids


def _read(job: Job, classes: Classes) -> tuple[Image.Image, NDArray[np.int64], NDArray[np.int64]]:
    """An item's image, and its labels before and after."""
    loaded = load(job, classes)
    before = loaded.before
    assert before is not None  # an item that was compared has something to compare with
    after = _labels_of(job)
    if before.shape != after.shape:
        raise InputError("a mask of its image's size", str(after.shape), "--overwrite")
    pixels = (loaded.pixels * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels), before, after


def _labels_of(job: Job) -> NDArray[np.int64]:
    path = job.mask
    if path.suffix.lower() == ".png":
        return read_prediction_file(path)[0].astype(np.int64)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["labels"].astype(np.int64)


def _choose_palette(job: Job, classes: Classes) -> Palette:
    """Colours of the first item's label file, or of the weights, if they tell its classes apart; else none."""
    own = classes.space.palette
    try:
        if job.prediction is not None and job.prediction.suffix.lower() == ".png":
            own = read_png_form(job.prediction).colours or own
        ids = set(np.unique(_labels_of(job)).tolist()) - {classes.ignore_index}
    except (InputError, OSError):
        return ()
    return own if tells_apart(own, ids) else ()


def _take_away(folder: Path, names: set[str]) -> None:
    """Removes the pictures that an earlier page of these items had."""
    if not folder.is_dir():
        return
    ends = [f".{kind}{_SUFFIXES[kind]}" for kind in KINDS]
    for path in folder.iterdir():
        if any(path.name.endswith(end) and path.name.removesuffix(end) in names for end in ends):
            path.unlink()
