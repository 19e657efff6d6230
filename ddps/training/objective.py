"""Diffusion on first prediction: the noised object is a segmentor's answer, the target is the truth.

Source: DDPS, arXiv 2306.01721, section 3.3. The first prediction of a plug-in refiner is the segmentor's own.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.kernels import Kernel
from ..diffusion.schedules import Schedule
from ..models.slot_unet import Condition, Known, SlotUNet
from ..slots import slot_kernel
from .config import TrainConfig
from .data import Batch
from .sets import IGNORE

OUTLINE_RADIUS = 4


def outline_weight(target: Tensor, extra: float) -> Tensor:
    """(B, H, W) 1, plus `extra` within 4 px of a true outline; 0 on void."""
    labels = target.masked_fill(target == IGNORE, 0)[:, None].float()
    side = 2 * OUTLINE_RADIUS + 1
    high = F.max_pool2d(labels, side, 1, OUTLINE_RADIUS)
    low = -F.max_pool2d(-labels, side, 1, OUTLINE_RADIUS)
    return ((high != low).float()[:, 0] * extra + 1) * (target != IGNORE)


def soft_iou_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - soft intersection over union, averaged over the slots that the truth of a crop holds."""
    known = (target != IGNORE)[:, None]
    probs = logits.softmax(1) * known
    truth = F.one_hot(target.masked_fill(target == IGNORE, 0), logits.shape[1]).permute(0, 3, 1, 2) * known
    overlap = (probs * truth).sum((2, 3))
    union = (probs + truth - probs * truth).sum((2, 3))
    held = (truth.sum((2, 3)) > 0) & valid
    return ((1 - (overlap + 1) / (union + 1)) * held).sum() / held.sum().clamp(min=1)


def refinement_loss(logits: Tensor, batch: Batch, config: TrainConfig, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy with outlines weighted up, plus the soft IoU loss.

    Args:
        logits: (B, S, H, W).
        batch: with the truth.
        config: of the run.
        class_weights: (256,) weight of every class, for batches with `labels`; None for equal ones.
    """
    weight = outline_weight(batch.target, config.boundary_weight)
    if class_weights is not None and batch.labels is not None:
        weight = weight * class_weights[batch.labels]
    cross_entropy = F.cross_entropy(logits, batch.target, ignore_index=IGNORE, reduction="none")
    loss = (cross_entropy * weight).sum() / weight.sum().clamp(min=1)
    if config.iou_weight:
        loss = loss + config.iou_weight * soft_iou_loss(logits, batch.target, batch.valid)
    return loss


def condition_of(network: SlotUNet, batch: Batch) -> Condition:
    """The network's condition for a batch."""
    valid = None if bool(batch.valid.all()) else batch.valid
    return network.condition(batch.image, batch.probs, valid, batch.classes)


def naming_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy of what the network says about classes by name, at the resolution at which it says it.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W) int64 classes of the truth, 255 on void.
        class_weights: (256,) weight of every class.
    """
    finer = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
    step = labels.shape[-1] // finer.shape[-1]
    labels = labels[:, step // 2 :: step, step // 2 :: step]
    weight = class_weights[labels] * (labels != IGNORE)
    loss = F.cross_entropy(finer, labels, ignore_index=IGNORE, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1e-3)


def first_crops(batch: Batch, condition: Condition, count: int) -> tuple[Batch, Condition]:
    """The first crops of a batch, with their part of its condition."""
    if count >= len(batch.image):
        return batch, condition
    known = condition.known
    planes = count * condition.slots if condition.valid is None else sum(condition.counts[:count])
    if known is not None:
        known = Known(known.logits[:count], known.evidence[:count], known.planes[:planes])
    part = Condition(
        features=[level[:count] for level in condition.features],
        probs=condition.probs[:count],
        coarse=condition.coarse[:count],
        log_odds=condition.log_odds[:count],
        valid=None if condition.valid is None else condition.valid[:count],
        counts=condition.counts[:count],
        known=known,
    )
    parts: dict[str, Any] = {k: None if v is None else v[:count] for k, v in vars(batch).items()}
    return Batch(**parts), part


def training_logits(
    network: SlotUNet,
    batch: Batch,
    schedule: Schedule,
    config: TrainConfig,
    generator: torch.Generator,
    condition: Condition | None = None,
) -> Tensor:
    """One denoising pass at a random network time i per image.

    Args:
        network: in training mode.
        batch: of crops.
        schedule: of the noise.
        config: of the run.
        generator: of times and noise.
        condition: of the batch, where it has been computed.

    Returns:
        (B, S, H, W) float32 logits at image scale.
    """
    condition = condition_of(network, batch) if condition is None else condition
    valid = condition.valid
    kernel = slot_kernel(config.model.schedule, batch.probs.shape[1], valid)
    prediction = condition.coarse.argmax(1)
    seeds = torch.randint(2**62, (len(prediction),), generator=generator).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    last = schedule.num_steps - 1
    draw = torch.rand((), generator=generator).item()
    first = 0 if draw < (1 + config.own_share) / 2 else last
    if draw < config.own_share:
        prediction = _own_prediction(network, condition, kernel, prediction.shape, generators)
        first = last
    times = torch.randint(first + 1, (len(prediction),), generator=generator)
    mask = kernel.sample(prediction, schedule.alpha_bar[last - times].float().to(prediction.device), generators)
    return network(mask, times.to(mask.device), condition).float()


@torch.no_grad()
def _own_prediction(
    network: SlotUNet, condition: Condition, kernel: Kernel, shape: torch.Size, generators: list[torch.Generator]
) -> Tensor:
    was_training = network.training
    network.eval()
    noise = kernel.prior((shape[0], shape[1], shape[2]), generators, condition.coarse.device)
    prediction = network.denoise(noise, 0, condition).logits.argmax(1)
    network.train(was_training)
    return prediction
