"""Validation of a run: whole images of the held-out split, as a user will refine them."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ...config import DDPSConfig
from ...inputs import load_image
from ...metrics import SegmentationMetrics
from ...outputs import Refinement
from ...refiner import DDPSRefiner, build_network
from .data import Split
from .segmentor import FrozenSegmentor


@dataclass(frozen=True)
class Report:
    """mIoU, mBIoU and accuracy in percent; `base` is the segmentor alone, where it says something."""

    images: int
    refined: dict[str, float]
    base: dict[str, float] | None

    @property
    def score(self) -> float:
        """What the best weights have most of: mIoU."""
        return self.refined["miou"]


def validate(
    model: DDPSConfig,
    weights: dict[str, Tensor],
    segmentor: FrozenSegmentor,
    split: Split,
    images: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Report:
    """Measures weights; the ranks share the images, and all get the whole report.

    Args:
        model: of the weights.
        weights: of `build_network(model)`.
        segmentor: on the device.
        split: to measure on.
        images: how many, spread evenly over the split; 0 for all.
        device: of this rank.
        rank, world: of this process.
    """
    network = build_network(model)
    network.load_state_dict(weights)
    refiner = DDPSRefiner(model, network, device)
    data = split.data
    refined = SegmentationMetrics(data.num_classes, data.ignore_index)
    base = SegmentationMetrics(data.num_classes, data.ignore_index)
    has_base = segmentor.has_logits or bool(split.predictions)
    pairs = data.pairs
    if images:
        pairs = pairs[:: max(1, len(pairs) // images)][:images]
    for image_path, mask_path in pairs[rank::world]:
        image = load_image(image_path)
        target = data.read_mask(mask_path)
        size = (image.shape[-2], image.shape[-1])
        seen = None
        if model.backbone is None or (segmentor.has_logits and not split.predictions):
            with torch.no_grad():
                seen = segmentor(image[None].to(device))
        features = None if model.backbone is not None or seen is None else seen.features
        answer = refiner.refine(image, features=features, return_probs=False)
        assert isinstance(answer, Refinement)
        refined.update(torch.as_tensor(answer.labels).cpu().numpy(), target)
        if has_base:
            own = split.predicted(image_path, size)
            if own is None:
                assert seen is not None and seen.logits is not None
                own = F.interpolate(seen.logits, size, mode="bilinear", align_corners=False)[0].argmax(0).cpu()
            base.update(own.numpy(), target)
    if world > 1:
        for metrics in (refined, base):
            _add_up(metrics, device)
    return Report(len(pairs), refined.as_dict(), base.as_dict() if has_base else None)


def _add_up(metrics: SegmentationMetrics, device: torch.device) -> None:
    boundary = metrics.boundary
    for counts in (metrics.confusion.counts, boundary.intersection, boundary.union):
        total = torch.from_numpy(counts).to(device)
        dist.all_reduce(total)
        counts[...] = total.cpu().numpy()
