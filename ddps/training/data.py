"""Data sets → crops over slots, with a segmentor's mistakes or synthetic ones.

Crop number `index` is a function of (seed, index): it does not matter which process makes it, or when.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..inputs import load_image
from ..models.slot_unet import BLANK
from ..predictions import load_prediction, read_prediction_file
from ..slots import labels_to_slots, plan_slots, to_slots
from .collage import collage
from .config import TrainConfig
from .corruption import chance, corrupt, hard_labels, low_resolution, repair, soften, uniform, vary_confidence
from .photometric import photometric
from .rough_labels import rough_labels
from .sets import IGNORE, DataSet, Source, taught_images

CACHE_BYTES = 6 * 2**30
MOST_REGIONS = 8
"""A crop with more classes than this has them grouped at random before synthetic mistakes are made."""
SOFT_SHARE = 0.65
"""Share of crops of label maps that are shown as probabilities: users may hand over either."""


@dataclass
class Sample:
    """One crop: image (3, c, c) in [0, 1], probs (S, c, c), target (c, c) int64 slot indices or 255.

    For networks that know their K classes by name also the class of every slot and of the most that there may be, K for
    "other" and for none, and the classes of the truth, (c, c), 255 on void.
    """

    image: Tensor
    probs: Tensor
    target: Tensor
    classes: Tensor | None = None
    labels: Tensor | None = None


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
        self._label_maps: set[Path] = set()
        self.named: int = getattr(config.model.network, "classes", 0)
        self.refined = refined_crops(config)
        self.parts = [taught_images(len(data.pairs), config.taught_share) for data in sets]

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed((self.config.seed * 0x9E3779B97F4A7C15 + index) % 2**63)
        data, image_path, mask_path = self._draw(generator, index % self.config.batch_size < self.refined)
        image, mask = self._image(image_path), self._mask(mask_path, data)
        if image.shape[-2:] != mask.shape:
            raise InputError(f"a mask of the size of {image_path}", f"{tuple(mask.shape)}", "resizing by nearest")
        grid = _random_window(mask.shape[-2:], self.config.crop, generator, upright=bool(self.named))
        crop = sample_window(image.float() / 255, grid, "bilinear")
        target = sample_window(mask[None].float(), grid, "nearest")[0].round().long()
        target[target == data.ignore_index] = IGNORE
        sources = [s for s in data.sources if image_path.stem in s.files]
        if not self.named and chance(self.config.collage_share, generator):
            crop, target = collage(crop, target, lambda: self._filling(generator), IGNORE, generator)
            probs, target = _synthetic(target, self.config.label_map_share, generator)
        elif sources and chance(self.config.real_share, generator):
            source = sources[int(torch.randint(len(sources), (), generator=generator))]
            probs, target = self._real(source, image_path.stem, data, mask.shape, target, grid, generator)
        elif self.named:
            probs = synthetic_by_name(target, self.named, self.config.label_map_share, generator)
        else:
            probs, target = _synthetic(target, self.config.label_map_share, generator)
        crop = photometric(crop, generator)
        if chance(self.config.condition_dropout, generator):
            crop = torch.full_like(crop, BLANK)
        return _to_sample(crop, probs, target, self.config.model.network, generator)

    def _draw(self, generator: torch.Generator, refined: bool = True) -> tuple[DataSet, Path, Path]:
        chosen = int(torch.multinomial(self.weights, 1, generator=generator))
        data = self.sets[chosen]
        places = self.parts[chosen][refined] if self.named else range(len(data.pairs))
        image, mask = data.pairs[places[int(torch.randint(len(places), (), generator=generator))]]
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
        as_labels = source.files[stem] in self._label_maps
        if source.merge is not None:
            table = torch.full((256,), IGNORE)
            table[: len(source.merge)] = source.merge
            target = table[target]
        if chance(self.config.repair_share, generator):
            probs = repair(probs, target, IGNORE, generator)
            if chance(0.5, generator):
                probs = low_resolution(probs, (2, 4, 8)[int(uniform(0, 3, generator))])
        if as_labels and self.named and chance(SOFT_SHARE, generator):
            probs = soften(probs, target, IGNORE, generator)
        return vary_confidence(probs, generator), target

    def _image(self, path: Path) -> Tensor:
        return self._keep(path, lambda: (load_image(path) * 255).round().to(torch.uint8))

    def _mask(self, path: Path, data: DataSet) -> Tensor:
        def read() -> Tensor:
            labels, _ = read_prediction_file(path)
            ids = np.unique(labels)
            strangers = ids[(ids >= data.num_classes) & (ids != data.ignore_index)]
            if strangers.size:
                expected = f"ids below {data.num_classes}, or {data.ignore_index} for void, in {path}"
                raise InputError(expected, ", ".join(map(str, strangers[:8])), "num_classes of classes.json that fit")
            return torch.from_numpy(labels.astype(np.uint8))

        return self._keep(path, read)

    def _planes(self, path: Path, size: tuple[int, ...], classes: int, ignore_index: int) -> Tensor:
        def read() -> Tensor:
            values, kind = read_prediction_file(path)
            native = tuple(values.shape[-2:])
            if kind == "labels":
                self._label_maps.add(path)
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


def refined_crops(config: TrainConfig) -> int:
    """How many crops of a batch are refined where classes have names: the first ones; the others teach."""
    return min(config.batch_size, max(1, round(config.refined_share * config.batch_size)))


def sample_window(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    """(C, h, w) values at a (1, c, c, 2) grid in units of `F.grid_sample`, so at any resolution: (C, c, c)."""
    return F.grid_sample(values[None], grid, mode=mode, padding_mode="border", align_corners=False)[0]


def _random_window(
    size: torch.Size | tuple[int, ...], crop: int, generator: torch.Generator, upright: bool = False
) -> Tensor:
    """(1, crop, crop, 2) sampling grid of a random window, 0.7 to 1.6 times the crop, at times flipped.

    An upright one is not turned upside down: what is above tells classes apart.
    """
    height, width = size
    side = min(crop * math.exp(uniform(math.log(0.6), math.log(1.5), generator)), 1.3 * min(height, width))
    top = uniform(min(0.0, height - side), max(0.0, height - side), generator)
    left = uniform(min(0.0, width - side), max(0.0, width - side), generator)
    axis = (torch.arange(crop) + 0.5) * side / crop
    rows, columns = (top + axis) * 2 / height - 1, (left + axis) * 2 / width - 1
    if chance(0.5, generator):
        columns = columns.flip(0)
    if chance(0.1, generator) and not upright:
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


def synthetic_by_name(target: Tensor, classes: int, label_map_share: float, generator: torch.Generator) -> Tensor:
    """(K, c, c) probabilities with synthetic mistakes, in which up to three classes that are not there may show."""
    known = target != IGNORE
    own = target[known].unique()
    strangers = torch.randperm(classes, generator=generator)
    strangers = strangers[~torch.isin(strangers, own)][: int(torch.randint(4, (), generator=generator))]
    shown = torch.cat([own, strangers])
    if len(shown) < 2:
        shown = torch.cat([shown, torch.tensor([k for k in range(classes) if k not in shown][: 2 - len(shown)])]).long()
    table = torch.zeros(256, dtype=torch.long)
    table[shown] = torch.arange(len(shown))
    truth = F.one_hot(table[target.masked_fill(~known, int(shown[0]))], len(shown)).permute(2, 0, 1).float()
    truth = torch.where(known, truth, 1.0 / len(shown))
    if chance(label_map_share, generator):
        probs = hard_labels(rough_labels(truth, generator), uniform(0.85, 0.95, generator))
    else:
        probs = vary_confidence(corrupt(truth, generator), generator)
    whole = torch.zeros(classes, *target.shape)
    whole[shown] = probs
    return whole


def _to_sample(image: Tensor, probs: Tensor, target: Tensor, network: object, generator: torch.Generator) -> Sample:
    max_slots = getattr(network, "max_slots", 8)
    named = getattr(network, "classes", 0)
    if len(probs) > 3 and not named and chance(0.3, generator):
        probs, target = _merge_classes(probs, target, generator)
    plan = plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), max_slots)
    slots = to_slots(probs, plan)
    sample = Sample(image, slots / slots.sum(0, keepdim=True), labels_to_slots(target, plan, IGNORE))
    if named:
        sample.classes, sample.labels = F.pad(plan.classes, (0, max_slots - len(plan.classes)), value=named), target
    return sample


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
    """Padded to one number of slots: image (B, 3, c, c), probs (B, S, c, c), target (B, c, c), valid (B, S).

    For networks that know their classes by name also classes (B, S) and labels (B, c, c), see `Sample`.
    """

    image: Tensor
    probs: Tensor
    target: Tensor
    valid: Tensor
    classes: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        parts = {
            name: None if value is None else value.to(device, non_blocking=True) for name, value in vars(self).items()
        }
        return Batch(**parts)  # type: ignore[arg-type]


def collate(samples: list[Sample]) -> Batch:
    most = max(len(s.probs) for s in samples)
    probs = torch.stack([F.pad(s.probs, (0, 0, 0, 0, 0, most - len(s.probs))) for s in samples])
    valid = torch.stack([torch.arange(most) < len(s.probs) for s in samples])
    batch = Batch(torch.stack([s.image for s in samples]), probs, torch.stack([s.target for s in samples]), valid)
    if all(s.classes is not None and s.labels is not None for s in samples):
        batch.classes = torch.stack([s.classes[:most] for s in samples if s.classes is not None])
        batch.labels = torch.stack([s.labels for s in samples if s.labels is not None])
    return batch
