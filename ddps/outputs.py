"""What `refine` gives back."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from . import visualize
from .atomic import atomic_write
from .errors import InputError
from .inputs import ImageLike, load_image
from .out_of_memory import memory_for

Array: TypeAlias = np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Refinement:
    """One refined image. Arrays are numpy or torch, as the prediction was.

    Attributes:
        labels: (H, W) int64, class of every pixel at image size.
        probs_source: the probabilities, or what computes them when `probs` is first asked for, or None.
        uncertainty: (H, W) float32 in [0, 1], 0 where the answer is sure: 1 minus the margin between the two most
            likely classes of `probs`; 1 means that they are equally likely. Between two classes, u means a chance of
            u / 2 to be wrong, as far as the segmentor's own confidence can be trusted. To review a mask, look at the
            pixels with the highest values first: half of the mistakes of a strong segmentor lie in the 10 % most
            uncertain ones (`ddps benchmark calibration`, docs/calibration.md).
        changed: (H, W) bool, where `labels` differs from the segmentor's own answer.
        palette: colour of every class.
        names: name of every class, or empty.
        trajectory: label maps (H, W) int64 after every step, with `return_trajectory=True`.
        seconds: time that refinement took.
        after: number of steps → the answer after so many steps of the same chain, with `after`.
        tile: side of the tiles in pixels that it was refined in, less than asked for where memory ran out; None from
            models that see images whole.
    """

    labels: Array
    probs_source: Array | Callable[[], Array] | None
    uncertainty: Array
    changed: Array
    palette: visualize.Palette
    names: tuple[str, ...] = ()
    trajectory: Sequence[Array] | None = None
    seconds: float = 0.0
    after: Mapping[int, "Refinement"] = field(default_factory=dict)
    tile: int | None = None

    @cached_property
    @memory_for("memory for all probabilities at image size", "labels and uncertainty, which take far less")
    def probs(self) -> Array | None:
        """(K, H, W) float32, sums to 1 at every pixel; None with `return_probs=False`. The likeliest class is that of
        `labels`, void pixels left out.

        Put together on first use: 150 classes at 3840 x 2160 take 5 GB.
        """
        return self.probs_source() if callable(self.probs_source) else self.probs_source

    def to_pil(self) -> Image.Image:
        """The mask: mode P with the palette up to 256 classes, 16-bit grey (I;16) above. Pixel values are class ids."""
        labels = _numpy(self.labels)
        if len(self.palette) > 256:
            return Image.fromarray(labels.astype(np.uint16))
        mask = Image.fromarray(labels.astype(np.uint8))
        # A PNG keeps 8 bits per pixel only with all 256 entries; with fewer, Pillow cuts ids beyond them, such as void.
        unused = [(0, 0, 0)] * (256 - len(self.palette))
        mask.putpalette([channel for colour in (*self.palette, *unused) for channel in colour])
        return mask

    def overlay(self, image: ImageLike, alpha: float = 0.5) -> Image.Image:
        """The image with the mask's colours over it.

        Args:
            image: what was refined, in any form that `refine` takes.
            alpha: weight of the mask, in [0, 1].

        Raises:
            InputError: the image cannot be read, or is not of the mask's size.
        """
        pixels = (rearrange(load_image(image), "c h w -> h w c") * 255).round().to(torch.uint8).numpy()
        return visualize.overlay(Image.fromarray(pixels), _numpy(self.labels), self.palette, alpha)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Writes the mask, whole or not at all.

        Args:
            path: `.png` for the label map (`to_pil`), `.npz` for labels, probs and uncertainty; both can be refined
                or evaluated again.
            overwrite: whether an existing file may be replaced.

        Returns:
            The path.

        Raises:
            InputError: another suffix, a file that exists, or a folder that does not.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in (".png", ".npz"):
            raise InputError("a file name ending in .png or .npz", repr(str(target)), "one of these two")
        with atomic_write(target, overwrite) as file:
            if suffix == ".png":
                self.to_pil().save(file, format="PNG")
            else:
                arrays = {"labels": self.labels, "probs": self.probs, "uncertainty": self.uncertainty}
                np.savez_compressed(
                    file,
                    allow_pickle=False,
                    **{key: _numpy(value) for key, value in arrays.items() if value is not None},
                )
        return target


def convert_container(refinement: Refinement, like: object) -> Refinement:
    """Gives every array the container of the user's prediction.

    Args:
        refinement: numpy or torch.
        like: the prediction; a torch tensor makes torch tensors on its device, anything else numpy arrays.
    """
    device = like.device if isinstance(like, Tensor) else None

    def convert(array: Array) -> Array:
        if device is None:
            return _numpy(array)
        return (array if isinstance(array, Tensor) else torch.from_numpy(array)).to(device)

    def convert_source() -> Array | Callable[[], Array] | None:
        source = refinement.probs_source
        if source is None or isinstance(source, np.ndarray | Tensor):
            return source if source is None else convert(source)
        return lambda: convert(source())

    return replace(
        refinement,
        labels=convert(refinement.labels),
        probs_source=convert_source(),
        uncertainty=convert(refinement.uncertainty),
        changed=convert(refinement.changed),
        trajectory=None if refinement.trajectory is None else [convert(step) for step in refinement.trajectory],
        after={step: convert_container(answer, like) for step, answer in refinement.after.items()},
    )


def _numpy(array: Array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
