"""Training crops by number, as the paper cuts them: the same number gives the same crop, whichever process makes it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...config import BackboneConfig, LabelSpace
from ...datasets import DataFolder, files_by_stem, list_pairs
from ...errors import InputError
from ...inputs import load_image
from ...predictions import load_prediction, read_prediction_file
from .augment import distort, draw_window, fill, look, look_nearest
from .config import DataConfig, PaperRun

VOID = -1
"""Void in training targets, whatever the data set calls it."""
PREDICTION_SUFFIXES = (".npz", ".npy", ".png")


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops. `target` is void where the crop was filled; `predicted` never is, and empty without predictions.

    Args:
        image: (B, 3, c, c) in [0, 1].
        target: (B, c, c) int64 classes of the users, or `VOID`.
        predicted: (B, c, c) int64 the segmentor's own prediction, or (B, 0, 0).
    """

    image: Tensor
    target: Tensor
    predicted: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """One split of the data set, with the segmentor's predictions by the image's stem."""

    data: DataFolder
    predictions: dict[str, Path]

    def mask(self, path: Path) -> Tensor:
        """(H, W) int64 classes of the users, or `VOID`."""
        mask = torch.from_numpy(self.data.read_mask(path))
        return mask.masked_fill(mask == self.data.ignore_index, VOID)

    def predicted(self, image: Path, size: tuple[int, int]) -> Tensor | None:
        """(H, W) int64 the segmentor's classes at image size, or None where there is no prediction."""
        path = self.predictions.get(image.stem)
        if path is None:
            return None
        values, kind = read_prediction_file(path)
        labels = load_prediction(values, size, kind, self.data.ignore_index, self.data.num_classes).argmax()
        # a segmentor's void is no class
        return torch.where((labels >= 0) & (labels < self.data.num_classes), labels, 0)


def read_split(run: PaperRun, split: str) -> Split:
    """Lists "train" or "val".

    Raises:
        InputError: no such data, of another number of classes than the recipe, or a prediction missing.
    """
    labels = run.recipe.model.labels
    data = list_pairs(Path(run.data), split, run.recipe.data.layout)
    if data.num_classes != labels.num_classes:
        raise InputError(
            f"a data set of {labels.num_classes} classes, as the recipe says",
            f"{data.num_classes} in {run.data}",
            "the recipe of this data set, or its own model.labels.num_classes and model.network.num_classes",
        )
    predictions: dict[str, Path] = {}
    if run.predictions:
        folder = Path(run.predictions) / split
        predictions = files_by_stem(folder, PREDICTION_SUFFIXES, "predictions")
        missing = [image.stem for image, _ in data.pairs if image.stem not in predictions]
        if missing:
            raise InputError(
                f"a prediction in {folder} for every image of the {split} split",
                f"none for {len(missing)}, such as {missing[0]}",
                "the segmentor's predictions of all images",
            )
    return Split(data, predictions)


def label_space(labels: LabelSpace, data: DataFolder) -> LabelSpace:
    """The recipe's label space with the data set's names, colours and void."""
    names = data.names if len(data.names) == data.num_classes else ()
    return LabelSpace(data.num_classes, names, tuple(data.palette), data.ignore_index, labels.void_first)


class Crops(torch.utils.data.Dataset[Batch]):
    """Crop number `index` is a function of (seed, index).

    Args:
        split: to cut from.
        config: how.
        backbone: whose mean colour fills what a crop lacks; None for grey.
        seed: of the run.
    """

    def __init__(self, split: Split, config: DataConfig, backbone: BackboneConfig | None, seed: int):
        self.split, self.config, self.seed = split, config, seed
        self.mean = torch.tensor((127.5,) * 3 if backbone is None else backbone.mean) / 255

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B97F4A7C15 + index) % 2**63)
        pairs = self.split.data.pairs
        image_path, mask_path = pairs[int(torch.randint(len(pairs), (), generator=generator))]
        image, mask = load_image(image_path), self.split.mask(mask_path)
        size = (image.shape[-2], image.shape[-1])
        if size != tuple(mask.shape):
            raise InputError(f"a mask of the size of {image_path}", f"{tuple(mask.shape)}", "resizing it by nearest")
        grid = draw_window(mask, self.config, VOID, generator)
        crop = look(image, grid)
        if self.config.photometric:
            crop = distort(crop, generator)
        side = self.config.crop
        predicted = self.split.predicted(image_path, size)
        return Batch(
            image=fill(crop, side, self.mean),
            target=fill(look_nearest(mask, grid), side, VOID),
            predicted=mask.new_empty((0, 0)) if predicted is None else fill(look_nearest(predicted, grid), side, 0),
        )


def collate(crops: list[Batch]) -> Batch:
    """Crops, one by one, to a batch."""
    return Batch(
        torch.stack([crop.image for crop in crops]),
        torch.stack([crop.target for crop in crops]),
        torch.stack([crop.predicted for crop in crops]),
    )
