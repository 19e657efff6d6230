"""Examples that the page offers, laid out as the files that a visitor would upload."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..visualize import default_palette
from .answers import bare_class
from .pictures import fit, masked

THUMBNAIL = 320


@dataclass(frozen=True, eq=False)
class Example:
    """A photo with a rough mask.

    Attributes:
        title: a word or two.
        photo: its file.
        labels: (H, W) class ids of the rough mask, of the photo's size.
        names: of class 0, 1, 2, ...
    """

    title: str
    photo: Path
    labels: NDArray[np.uint8]
    names: tuple[str, ...]


@dataclass(frozen=True)
class ExampleFiles:
    """An example on disk, and what stands for it on the page."""

    title: str
    photo: Path
    mask: Path
    names: str
    thumbnail: Image.Image


def lay_out(examples: Sequence[Example], folder: Path) -> list[ExampleFiles]:
    """Writes every example as two files.

    Args:
        examples: with different titles.
        folder: an empty one.
    """
    laid_out = []
    for example in examples:
        photo = folder / f"{example.title}{example.photo.suffix}"
        copyfile(example.photo, photo)
        mask = folder / f"{example.title}_mask.png"
        Image.fromarray(example.labels).save(mask)
        with Image.open(photo) as picture:
            thumbnail = _square(masked(picture.convert("RGB"), example.labels, *_colours(example)))
        laid_out.append(ExampleFiles(example.title, photo, mask, ", ".join(example.names), thumbnail))
    return laid_out


def _colours(example: Example) -> tuple[tuple[tuple[int, int, int], ...], int | None]:
    return default_palette(len(example.names)), bare_class(example.names, len(example.names))


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return fit(picture.crop((left, top, left + side, top + side)), THUMBNAIL)
