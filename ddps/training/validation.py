"""Validation during training: the refiner as users will call it, on held-out images, against the segmentor alone."""

from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..canvas import mix_probs
from ..metrics import SegmentationMetrics
from ..predictions import AnyKind, Kind, load_prediction, read_prediction_file
from ..refiner import DDPSRefiner, build_network
from ..visualize import default_palette
from .config import TrainConfig
from .corruption import corrupt
from .pictures import Example
from .sets import DataSet, Source

MIXES = (1.0, 0.75, 0.5)
"""Shares of the refiner in the answer that validation tries."""
UNSEEN_MIX = 0.6
"""Share for probabilities where classes are known by name and no segmentor's probabilities were there to validate on:
the one that they will come from may know the classes better."""


class Report(TypedDict):
    """mIoU and mBIoU in percent of one segmentor's predictions on one data set, before and after."""

    set: str
    images: int
    base_miou: float
    base_mbiou: float
    miou: float
    mbiou: float


@dataclass(frozen=True)
class Validation:
    """Figures of every set at the best mix.

    Args:
        mix: share of the refiner that gains most, to become the default of `refine`.
        label_mix: the same for label maps.
        score: gain in mIoU + mBIoU, in points, averaged over the sets.
        reports: one per segmentor and set.
        examples: one image per segmentor and set, to be looked at.
    """

    mix: float
    label_mix: float
    score: float
    reports: list[Report]
    examples: list[Example] = field(default_factory=list, compare=False)

    def as_row(self) -> dict[str, object]:
        """What the log keeps of it."""
        return {"mix": self.mix, "label_mix": self.label_mix, "score": self.score, "reports": self.reports}


def validate(
    weights: dict[str, Tensor], sets: list[DataSet], config: TrainConfig, device: torch.device
) -> Validation | None:
    """Refines up to `validate_images` predictions of every segmentor of every set; None where there is nothing to do.

    A set without predictions is judged on synthetic mistakes, the same at every validation.

    Label maps and probabilities have a mix each. Where only one of the two is given it is that of both, but for
    classes that are known by name: what made-up mistakes and label maps say of probabilities is far too good there.
    """
    network = build_network(config.model)
    network.load_state_dict(weights)
    alone = replace(config.model, inference=replace(config.model.inference, mix=1.0, label_mix=1.0, hedge=0.0))
    refiner = DDPSRefiner(alone, network, device)
    found = []
    for data in sets:
        sources: list[Source | None] = [*data.sources] or [None]
        judged = [_validate_source(refiner, data, source, config) for source in sources]
        found += [one for one in judged if one is not None]
    if not found:
        return None
    labels = [one for one in found if one.kind == "labels"]
    others = [one for one in found if one.kind != "labels"]
    label_best, best = _best(labels or others), _best(others or labels)
    chosen = [(one, label_best if one.kind == "labels" else best) for one in found]
    named = bool(getattr(config.model.network, "classes", 0))
    told = bool(others) and any(data.sources for data in sets)
    return Validation(
        MIXES[best] if told or not named else UNSEEN_MIX,
        MIXES[label_best],
        _score([one.reports[index] for one, index in chosen]),
        [one.reports[index] for one, index in chosen],
        [replace(one.example, refined=one.refined[index]) for one, index in chosen],
    )


@dataclass(frozen=True)
class _Judged:
    """One segmentor's predictions: a report per mix, and its first image with the refined labels per mix."""

    kind: Kind
    reports: list[Report]
    example: Example
    refined: list[Tensor]


def _best(judged: list[_Judged]) -> int:
    """Place of the mix that gains most."""
    return max(range(len(MIXES)), key=lambda index: _score([one.reports[index] for one in judged]))


def _score(reports: list[Report]) -> float:
    gains = [r["miou"] - r["base_miou"] + r["mbiou"] - r["base_mbiou"] for r in reports]
    return float(np.nanmean(gains))


def _validate_source(refiner: DDPSRefiner, data: DataSet, source: Source | None, config: TrainConfig) -> _Judged | None:
    pairs = [p for p in data.pairs if source is None or p[0].stem in source.files]
    chosen = pairs[:: max(1, len(pairs) // max(1, config.validate_images))][: config.validate_images]
    if not chosen:
        return None
    name = data.name if source is None else f"{data.name}/{source.name}"
    first: tuple[Kind, Example, list[Tensor]] | None = None
    merge = None if source is None else source.merge
    classes = data.num_classes if merge is None else int(merge.max()) + 1
    base, *refined = (SegmentationMetrics(classes, data.ignore_index) for _ in range(1 + len(MIXES)))
    for number, (image, mask) in enumerate(chosen):
        target = torch.from_numpy(read_prediction_file(mask)[0])
        if merge is not None:
            target = torch.where(target < len(merge), merge[target.clamp(max=len(merge) - 1)], target)
        size = (target.shape[0], target.shape[1])
        values: np.ndarray | Tensor
        kind: AnyKind
        if source is None:
            values, kind = _damaged(target, classes, data.ignore_index, number), "probs"
        else:
            values, kind = read_prediction_file(source.files[image.stem])
        prediction = load_prediction(values, size, kind, data.ignore_index, classes)
        answer = refiner.refine(
            image, values, kind=prediction.kind, ignore_index=data.ignore_index, num_classes=classes
        )
        assert not isinstance(answer, list) and answer.probs is not None
        base.update(prediction.argmax(), target)
        before, after = prediction.probs(), torch.as_tensor(answer.probs)
        mixed = [mix_probs(before, after, mix).argmax(0) for mix in MIXES]
        for labels, metrics in zip(mixed, refined, strict=True):
            metrics.update(labels, target)
        if first is None:
            own, names = prediction.argmax(), data.names if merge is None else ()
            example = Example(name, image, own, own, target, default_palette(classes), names)
            first = prediction.kind, example, mixed
    assert first is not None
    alone = base.as_dict()
    reports = [
        Report(
            set=name,
            images=len(chosen),
            base_miou=alone["miou"],
            base_mbiou=alone["mbiou"],
            miou=metrics.as_dict()["miou"],
            mbiou=metrics.as_dict()["mbiou"],
        )
        for metrics in refined
    ]
    kind_of_all, example, labels_per_mix = first
    return _Judged(kind_of_all, reports, example, labels_per_mix)


def _damaged(target: Tensor, classes: int, ignore_index: int, number: int) -> Tensor:
    """(K, H, W) probabilities with synthetic mistakes that depend on the image's number only."""
    known = target != ignore_index
    present = target[known].unique()
    table = torch.zeros(int(max(target.max(), present.max() if len(present) else 0)) + 1, dtype=torch.long)
    table[present] = torch.arange(len(present))
    count = max(2, len(present))
    truth = F.one_hot(torch.where(known, table[target.clamp(max=len(table) - 1)], 0), count).permute(2, 0, 1).float()
    probs = corrupt(torch.where(known, truth, 1 / count), torch.Generator().manual_seed(number))
    whole = torch.zeros((classes, *target.shape))
    for slot, label in enumerate(present.tolist()):
        whole[label] = probs[slot]
    return whole / whole.sum(0, keepdim=True).clamp(min=1e-6)
