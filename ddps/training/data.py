"""Folders of images, masks and, optionally, a segmentor's predictions → crops over slots.

A data set is a folder `SET/{train,val}/{images,masks}` with one stem per pair, and `SET/classes.json`
(`classes`, `num_classes`, `ignore_index`). Predictions lie in `ROOT/{train,val}`, `ROOT/NAME/{train,val}` or, for
several data sets, `ROOT/SET/NAME/{train,val}`: `<stem>.npz`, `.npy` or `.png` at any resolution. They should come
from a segmentor that did not train on these images (`examples/out_of_fold.py`). A `classes.json` beside `train`
whose `merge` lists a new index for every class says that the segmentor knows these merged classes only.

Crop number `index` is a function of (seed, index): it does not matter which process makes it, or when.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..inputs import load_image
from ..models.slot_unet import BLANK
from ..predictions import load_prediction, read_prediction_file
from ..slots import labels_to_slots, plan_slots, to_slots
from .collage import collage
from .config import TrainConfig
from .corruption import chance, corrupt, hard_labels, low_resolution, repair, uniform, vary_confidence
from .photometric import photometric
from .rough_labels import rough_labels

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
PREDICTION_SUFFIXES = (".npz", ".npy", ".png")
CACHE_BYTES = 6 * 2**30
IGNORE = 255
MOST_REGIONS = 8
"""A crop with more classes than this has them grouped at random before synthetic mistakes are made."""


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


@dataclass
class Sample:
    """One crop: image (3, c, c) in [0, 1], probs (S, c, c), target (c, c) int64 slot indices or 255."""

    image: Tensor
    probs: Tensor
    target: Tensor


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
    images, masks = folder / split / "images", folder / split / "masks"
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
        data.sources = _find_sources(predictions, folder.name, split, several, {p.stem for p, _ in pairs}, about[0])
    return data


def _read_classes(path: Path) -> tuple[int, int, tuple[str, ...]]:
    hint = '{"classes": ["road", …], "num_classes": 11, "ignore_index": 255}'
    try:
        about = json.loads(path.read_text())
        count = int(about["num_classes"])
        return count, int(about.get("ignore_index", IGNORE)), tuple(map(str, about.get("classes", ())))
    except FileNotFoundError:
        raise InputError("a classes.json beside train/", f"no {path}", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} with num_classes", f"{type(error).__name__}: {error}", hint) from None


def _read_merge(path: Path, num_classes: int) -> Tensor | None:
    """(K,) new index of every class, or None where the file has no such rule."""
    try:
        rule = json.loads(path.read_text()).get("merge")
        merge = None if rule is None else torch.tensor(rule, dtype=torch.long)
        fits = merge is None or (merge.shape == (num_classes,) and int(merge.min()) >= 0 and int(merge.max()) < IGNORE)
    except (ValueError, TypeError, RuntimeError, AttributeError):
        fits = False
    if not fits:
        raise InputError(
            f"{path} whose merge gives a new index to each of {num_classes} classes", "another rule", "[0, 0, 1, ...]"
        )
    return merge


def _find_sources(root: Path, name: str, split: str, several: bool, stems: set[str], num_classes: int) -> list[Source]:
    if not root.is_dir():
        raise InputError("a folder with predictions", f"no folder {root}", "ROOT/train/<stem>.npz")
    base = root / name if (root / name).is_dir() else root
    if base is root and several:
        return []
    sources = []
    for folder in [base, *sorted(p for p in base.iterdir() if p.is_dir())]:
        if not (folder / split).is_dir():
            continue
        found = sorted(p for p in (folder / split).iterdir() if p.suffix.lower() in PREDICTION_SUFFIXES)
        files = {p.stem: p for p in found}
        strangers = sorted(set(files) - stems)
        if strangers:
            raise InputError(
                f"predictions in {folder / split} for images of the {split} split",
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


class CropStream(torch.utils.data.Dataset[Sample]):
    """Training crops by number; the same number gives the same crop."""

    def __init__(self, sets: list[DataSet], config: TrainConfig):
        self.sets, self.config = sets, config
        weights = config.data_weights or tuple(math.sqrt(len(s.pairs)) for s in sets)
        if len(weights) != len(sets):
            raise InputError(f"one data weight for each of {len(sets)} data sets", f"{len(weights)}", "as many")
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self._cache: dict[Path, Tensor] = {}
        self._cached = 0

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed((self.config.seed * 0x9E3779B97F4A7C15 + index) % 2**63)
        data, image_path, mask_path = self._draw(generator)
        image, mask = self._image(image_path), self._mask(mask_path)
        if image.shape[-2:] != mask.shape:
            raise InputError(f"a mask of the size of {image_path}", f"{tuple(mask.shape)}", "resizing by nearest")
        grid = _random_window(mask.shape[-2:], self.config.crop, generator)
        crop = sample_window(image.float() / 255, grid, "bilinear")
        target = sample_window(mask[None].float(), grid, "nearest")[0].round().long()
        target[target == data.ignore_index] = IGNORE
        sources = [s for s in data.sources if image_path.stem in s.files]
        if chance(self.config.collage_share, generator):
            crop, target = collage(crop, target, lambda: self._filling(generator), IGNORE, generator)
            probs, target = _synthetic(target, self.config.label_map_share, generator)
        elif sources and chance(self.config.real_share, generator):
            source = sources[int(torch.randint(len(sources), (), generator=generator))]
            probs, target = self._real(source, image_path.stem, data, mask.shape, target, grid, generator)
        else:
            probs, target = _synthetic(target, self.config.label_map_share, generator)
        crop = photometric(crop, generator)
        if chance(self.config.condition_dropout, generator):
            crop = torch.full_like(crop, BLANK)
        return _to_sample(crop, probs, target, self.config.model.network, generator)

    def _draw(self, generator: torch.Generator) -> tuple[DataSet, Path, Path]:
        data = self.sets[int(torch.multinomial(self.weights, 1, generator=generator))]
        image, mask = data.pairs[int(torch.randint(len(data.pairs), (), generator=generator))]
        return data, image, mask

    def _filling(self, generator: torch.Generator) -> Tensor:
        """A crop of any image, in other light."""
        _, path, _ = self._draw(generator)
        image = self._image(path)
        grid = _random_window(image.shape[-2:], self.config.crop, generator)
        grid = grid * uniform(0.3, 1, generator)
        return photometric(sample_window(image.float() / 255, grid, "bilinear"), generator)

    def _real(
        self,
        source: Source,
        stem: str,
        data: DataSet,
        size: tuple[int, ...],
        target: Tensor,
        grid: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        classes = data.num_classes if source.merge is None else int(source.merge.max()) + 1
        planes = self._planes(source.files[stem], size, classes, data.ignore_index).float() / 255
        probs = sample_window(planes, grid, "bilinear")
        probs = probs / probs.sum(0, keepdim=True).clamp(min=1e-3)
        if source.merge is not None:
            table = torch.full((256,), IGNORE)
            table[: len(source.merge)] = source.merge
            target = table[target]
        if chance(self.config.repair_share, generator):
            probs = repair(probs, target, IGNORE, generator)
            if chance(0.5, generator):
                probs = low_resolution(probs, (2, 4, 8)[int(uniform(0, 3, generator))])
        return vary_confidence(probs, generator), target

    def _image(self, path: Path) -> Tensor:
        return self._keep(path, lambda: (load_image(path) * 255).round().to(torch.uint8))

    def _mask(self, path: Path) -> Tensor:
        def read() -> Tensor:
            with Image.open(path) as mask:
                return torch.from_numpy(np.array(mask).astype(np.uint8))

        return self._keep(path, read)

    def _planes(self, path: Path, size: tuple[int, ...], classes: int, ignore_index: int) -> Tensor:
        def read() -> Tensor:
            values, kind = read_prediction_file(path)
            native = tuple(values.shape[-2:])
            loaded = load_prediction(values, (native[0], native[1]), kind, ignore_index, classes)
            return (loaded.probs() * 255).round().to(torch.uint8)

        return self._keep(path, read)

    def _keep(self, path: Path, read: Callable[[], Tensor]) -> Tensor:
        if path in self._cache:
            return self._cache[path]
        value = read()
        if self._cached + value.numel() <= CACHE_BYTES:
            self._cache[path] = value
            self._cached += value.numel()
        return value


def sample_window(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    """(C, h, w) values at a (1, c, c, 2) grid in units of `F.grid_sample`, so at any resolution: (C, c, c)."""
    return F.grid_sample(values[None], grid, mode=mode, padding_mode="border", align_corners=False)[0]


def _random_window(size: torch.Size | tuple[int, ...], crop: int, generator: torch.Generator) -> Tensor:
    """(1, crop, crop, 2) sampling grid of a random window, 0.7 to 1.6 times the crop, at times flipped."""
    height, width = size
    side = min(crop * math.exp(uniform(math.log(0.6), math.log(1.5), generator)), 1.3 * min(height, width))
    top = uniform(min(0.0, height - side), max(0.0, height - side), generator)
    left = uniform(min(0.0, width - side), max(0.0, width - side), generator)
    axis = (torch.arange(crop) + 0.5) * side / crop
    rows, columns = (top + axis) * 2 / height - 1, (left + axis) * 2 / width - 1
    if chance(0.5, generator):
        columns = columns.flip(0)
    if chance(0.1, generator):
        rows = rows.flip(0)
    x, y = columns.expand(crop, crop), rows[:, None].expand(crop, crop)
    return torch.stack([x, y], -1)[None]


def _synthetic(target: Tensor, label_map_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Slot probabilities with synthetic mistakes over the classes of the crop, and the target in the same indices."""
    known = target != IGNORE
    classes = target[known].unique()
    table = torch.full((256,), IGNORE)
    if len(classes) > MOST_REGIONS:
        groups = int(torch.randint(2, MOST_REGIONS + 1, (), generator=generator))
        table[classes] = torch.randint(groups, (len(classes),), generator=generator)
        target, count = table[target], groups
    else:
        table[classes] = torch.arange(len(classes))
        target, count = table[target], max(2, len(classes))
    probs = F.one_hot(target.masked_fill(~known, 0), count).permute(2, 0, 1).float()
    probs = torch.where(known, probs, 1.0 / count)
    if chance(label_map_share, generator):
        return hard_labels(rough_labels(probs, generator), uniform(0.85, 0.95, generator)), target
    return vary_confidence(corrupt(probs, generator), generator), target


def _to_sample(image: Tensor, probs: Tensor, target: Tensor, network: object, generator: torch.Generator) -> Sample:
    max_slots = getattr(network, "max_slots", 8)
    if len(probs) > 3 and chance(0.3, generator):
        probs, target = _merge_classes(probs, target, generator)
    plan = plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), max_slots)
    slots = to_slots(probs, plan)
    return Sample(image, slots / slots.sum(0, keepdim=True), labels_to_slots(target, plan, IGNORE))


def _merge_classes(probs: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random coarser label space: outlines between merged classes are no outlines any more."""
    groups = int(torch.randint(2, len(probs), (), generator=generator))
    rule = torch.randint(groups, (len(probs),), generator=generator)
    merged = torch.zeros((groups, *probs.shape[1:])).index_add_(0, rule, probs)
    table = torch.full((256,), IGNORE)
    table[: len(probs)] = rule
    return merged, table[target]


@dataclass
class Batch:
    """Padded to one number of slots: image (B, 3, c, c), probs (B, S, c, c), target (B, c, c), valid (B, S)."""

    image: Tensor
    probs: Tensor
    target: Tensor
    valid: Tensor


def collate(samples: list[Sample]) -> Batch:
    most = max(len(s.probs) for s in samples)
    probs = torch.stack([F.pad(s.probs, (0, 0, 0, 0, 0, most - len(s.probs))) for s in samples])
    valid = torch.stack([torch.arange(most) < len(s.probs) for s in samples])
    return Batch(torch.stack([s.image for s in samples]), probs, torch.stack([s.target for s in samples]), valid)
