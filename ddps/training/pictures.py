"""A picture of a validation: image, prediction, refined and truth in a row for every segmentor of every set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..atomic import atomic_write
from ..inputs import load_image
from ..visualize import Palette, colourise, legend, side_by_side, stack

PICTURES_FOLDER = "examples"
HEIGHT = 240


@dataclass(frozen=True, eq=False)
class Example:
    """One validated image.

    Attributes:
        title: of its set and segmentor.
        image: file.
        prediction, refined, truth: (H, W) int64.
        palette, names: of the classes.
    """

    title: str
    image: Path
    prediction: Tensor
    refined: Tensor
    truth: Tensor
    palette: Palette
    names: tuple[str, ...]


def save_examples(examples: Sequence[Example], step: int, run: Path) -> None:
    """Writes `RUN/examples/step_000500.png`."""
    if not examples:
        return
    folder = run / PICTURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"step_{step:06d}.png", overwrite=True) as file:
        stack([_row(example) for example in examples]).save(file, format="PNG")


def _row(example: Example) -> Image.Image:
    pixels = (load_image(example.image) * 255).round().byte().permute(1, 2, 0).numpy()
    panels = [(f"{example.title}: {example.image.name}", Image.fromarray(pixels))]
    masks = (("prediction", example.prediction), ("refined", example.refined), ("truth", example.truth))
    panels += [(title, Image.fromarray(colourise(labels.numpy(), example.palette))) for title, labels in masks]
    row = side_by_side(panels, HEIGHT)
    shown = np.unique(np.concatenate([labels.numpy().ravel() for _, labels in masks])).tolist()
    return stack([row, legend(example.palette, example.names, shown, row.width)])
