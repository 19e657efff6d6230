"""Validation during training: the refiner as users will call it, on held-out images, against the segmentor alone."""

from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..metrics import SegmentationMetrics
from ..models.slot_unet import SlotUNet
from ..predictions import load_prediction, read_prediction_file
from ..refiner import DDPSRefiner, build_network
from .config import TrainConfig
from .corruption import corrupt
from .data import DataSet, Source


class Report(TypedDict):
    """mIoU and mBIoU in percent of one segmentor's predictions on one data set, before and after; gain of their sum."""

    set: str
    images: int
    base_miou: float
    base_mbiou: float
    miou: float
    mbiou: float
    gain: float


def validate(
    weights: dict[str, Tensor], sets: list[DataSet], config: TrainConfig, device: torch.device
) -> list[Report]:
    """Refines up to `validate_images` predictions of every segmentor of every set.

    A set without predictions is judged on synthetic mistakes, the same at every validation.
    """
    network = build_network(config.model)
    assert isinstance(network, SlotUNet)
    network.load_state_dict(weights)
    refiner = DDPSRefiner(config.model, network, device)
    reports = []
    for data in sets:
        sources: list[Source | None] = [*data.sources] or [None]
        for source in sources:
            report = _validate_source(refiner, data, source, config)
            if report is not None:
                reports.append(report)
    return reports


def _validate_source(refiner: DDPSRefiner, data: DataSet, source: Source | None, config: TrainConfig) -> Report | None:
    pairs = [p for p in data.pairs if source is None or p[0].stem in source.files]
    chosen = pairs[:: max(1, len(pairs) // max(1, config.validate_images))][: config.validate_images]
    if not chosen:
        return None
    merge = None if source is None else source.merge
    classes = data.num_classes if merge is None else int(merge.max()) + 1
    base, refined = SegmentationMetrics(classes, data.ignore_index), SegmentationMetrics(classes, data.ignore_index)
    for number, (image, mask) in enumerate(chosen):
        with Image.open(mask) as file:
            target = torch.from_numpy(np.array(file).astype(np.int64))
        if merge is not None:
            known = target < len(merge)
            target = torch.where(known, merge[target.clamp(max=len(merge) - 1)], target)
        size = (target.shape[0], target.shape[1])
        if source is None:
            values: np.ndarray | Tensor = _damaged(target, classes, data.ignore_index, number)
            prediction = load_prediction(values, size, "probs", data.ignore_index, classes)
        else:
            values, kind = read_prediction_file(source.files[image.stem])
            prediction = load_prediction(values, size, kind, data.ignore_index, classes)
        answer = refiner.refine(
            image, values, kind=prediction.kind, ignore_index=data.ignore_index, num_classes=classes, return_probs=False
        )
        assert not isinstance(answer, list)
        base.update(prediction.argmax(), target)
        refined.update(answer.labels, target)
    before, after = base.as_dict(), refined.as_dict()
    name = data.name if source is None else f"{data.name}/{next(iter(source.files.values())).parent.parent.name}"
    return Report(
        set=name,
        images=len(chosen),
        base_miou=before["miou"],
        base_mbiou=before["mbiou"],
        miou=after["miou"],
        mbiou=after["mbiou"],
        gain=after["miou"] - before["miou"] + after["mbiou"] - before["mbiou"],
    )


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
