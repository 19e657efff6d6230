"""A ground-truth mask as a segmentor might have predicted it: synthetic mistakes for pairs without predictions.

Everything here works on slot probabilities (S, H, W) of one crop and draws from the generator that it is given.
The mistakes: outlines off by a few pixels, classes grown at the cost of others, low-resolution logits, blobs of a
wrong class, missing pieces, unsure regions, over- and underconfidence, polygonised outlines.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def chance(probability: float, generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < probability


def smooth_noise(channels: int, size: Sequence[int], cell: float, generator: torch.Generator) -> Tensor:
    """(channels, H, W) noise of about unit variance that changes over `cell` pixels."""
    grid = [max(2, math.ceil(side / cell) + 1) for side in size]
    noise = torch.randn((1, channels, *grid), generator=generator)
    return F.interpolate(noise, tuple(size), mode="bicubic", align_corners=True)[0] * 1.3


def displace(probs: Tensor, pixels: float, cell: float, generator: torch.Generator) -> Tensor:
    """Moves outlines along a smooth random field of `pixels` typical length."""
    height, width = probs.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = pixels * smooth_noise(2, (height, width), cell, generator)
    grid = torch.stack([(columns + flow[0] + 0.5) * 2 / width - 1, (rows + flow[1] + 0.5) * 2 / height - 1], -1)
    return F.grid_sample(probs[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def grow(probs: Tensor, radius: int, strength: float, generator: torch.Generator) -> Tensor:
    """Blurs, then lets some classes grow at the cost of others."""
    side = 2 * radius + 1
    blurred = F.avg_pool2d(F.pad(probs[None], (radius,) * 4, mode="replicate"), side, 1)[0]
    weight = torch.exp(strength * torch.randn(len(probs), generator=generator))
    return normalised(blurred * weight[:, None, None])


def low_resolution(probs: Tensor, stride: int) -> Tensor:
    """What is left of a map after average pooling to `stride` and bilinear upsampling."""
    size = probs.shape[-2:]
    coarse = F.interpolate(probs[None], [max(1, side // stride) for side in size], mode="area")
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)[0]


def swap_blobs(probs: Tensor, cell: float, share: float, generator: torch.Generator) -> Tensor:
    """In random blobs (about `share` of the pixels) classes trade places."""
    noise = smooth_noise(1, probs.shape[-2:], cell, generator)
    edge = torch.quantile(noise.flatten()[::7], 1 - share)
    blend = torch.sigmoid((noise - edge) * uniform(2, 12, generator)) * uniform(0.5, 1, generator)
    other = probs[torch.randperm(len(probs), generator=generator)]
    return probs * (1 - blend) + other * blend


def noisy_logits(probs: Tensor, strength: float, cell: float, generator: torch.Generator) -> Tensor:
    """Adds smooth noise to the log-probabilities."""
    logits = probs.clamp(min=0.01).log()
    return (logits + strength * smooth_noise(len(probs), probs.shape[-2:], cell, generator)).softmax(0)


def temperature(probs: Tensor, tau: float) -> Tensor:
    """Sharper (tau < 1) or flatter (tau > 1) probabilities."""
    return normalised(probs.clamp(min=1e-4) ** (1 / tau))


def hard_labels(probs: Tensor, confidence: float) -> Tensor:
    """One-hot of the argmax with `confidence`, the rest spread over the other classes."""
    count = len(probs)
    one_hot = F.one_hot(probs.argmax(0), count).permute(2, 0, 1).to(probs.dtype)
    rest = (1 - confidence) / max(1, count - 1)
    return one_hot * (confidence - rest) + rest


def repair(probs: Tensor, target: Tensor, ignore_index: int, generator: torch.Generator) -> Tensor:
    """What a better segmentor of the same kind would say: some of the mistakes away from outlines are mended.

    A mended pixel keeps its confidence: the true class and the most likely one trade their probabilities. How far from
    an outline a mistake has to lie wanders over the crop.

    Args:
        probs: (S, H, W) a prediction.
        target: (H, W) int64 truth, `ignore_index` on void.
        ignore_index: label of void pixels.
        generator: source of every random choice.

    Returns:
        (S, H, W) probabilities.
    """
    labels = target.masked_fill(target == ignore_index, 0)
    tolerance = uniform(0, 5, generator) + uniform(0.5, 2.5, generator) * _field(target, 8, 40, generator)
    far = outline_distance(labels, 8) >= tolerance
    mended = _field(target, 15, 80, generator) < uniform(-0.7, 2.5, generator)
    guess = probs.argmax(0)
    swap = far & mended & (target != ignore_index) & (guess != labels)
    own, best = probs.gather(0, labels[None]), probs.amax(0, keepdim=True)
    swapped = probs.scatter(0, labels[None], best).scatter(0, guess[None], own)
    return torch.where(swap, swapped, probs)


def _field(target: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return smooth_noise(1, target.shape, uniform(low, high, generator), generator)[0]


def outline_distance(labels: Tensor, most: int) -> Tensor:
    """(H, W) how many pixels away, up to `most`, another label begins (chessboard distance); 0 beside an outline."""
    values = labels[None, None].float()
    high, low = values, -values
    distance = torch.zeros(labels.shape)
    for _ in range(most):
        high, low = F.max_pool2d(high, 3, 1, 1), F.max_pool2d(low, 3, 1, 1)
        distance += (high == -low)[0, 0]
    return distance


def normalised(probs: Tensor) -> Tensor:
    return probs / probs.sum(0, keepdim=True).clamp(min=1e-6)


def corrupt(truth: Tensor, generator: torch.Generator) -> Tensor:
    """A random sequence of mistakes.

    Args:
        truth: (S, H, W) one-hot ground truth; void pixels may hold any distribution.
        generator: source of every random choice.

    Returns:
        (S, H, W) probabilities, summing to 1.
    """
    probs = truth
    if chance(0.4, generator):
        probs = swap_blobs(probs, uniform(8, 60, generator), uniform(0.005, 0.12, generator), generator)
    if chance(0.7, generator):
        probs = displace(probs, uniform(0.5, 5, generator), uniform(6, 40, generator), generator)
    if chance(0.6, generator):
        probs = grow(probs, int(uniform(1, 7, generator)), uniform(0, 1.2, generator), generator)
    if chance(0.5, generator):
        probs = low_resolution(probs, (2, 4, 8, 16)[int(uniform(0, 4, generator))])
    if chance(0.6, generator):
        probs = noisy_logits(probs, uniform(0.2, 2, generator), uniform(1.5, 30, generator), generator)
    if chance(0.2, generator):
        probs = low_resolution(hard_labels(probs, 1.0), (4, 8, 16)[int(uniform(0, 3, generator))])
    return normalised(probs)


def vary_confidence(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Other resolution, other temperature, or labels only: what one segmentor's output becomes in other hands."""
    if chance(0.2, generator):
        probs = low_resolution(probs, (2, 4, 8)[int(uniform(0, 3, generator))])
    if chance(0.5, generator):
        probs = temperature(probs, math.exp(uniform(-0.8, 0.8, generator)))
    if chance(0.2, generator):
        probs = hard_labels(probs, uniform(0.8, 0.97, generator))
    return normalised(probs)


def soften(probs: Tensor, target: Tensor, ignore_index: int, generator: torch.Generator) -> Tensor:
    """A label map as the probabilities that its segmentor may have had.

    Outlines are unsure; so are regions, and wrong ones more often than right ones; where a segmentor is wrong and
    unsure, the truth is often its second guess. How much of all this there is, is drawn anew for every crop.

    Args:
        probs: (S, H, W), of which only the argmax counts.
        target: (H, W) int64 truth, `ignore_index` on void.
        ignore_index: label of void pixels.
        generator: source of every random choice.

    Returns:
        (S, H, W) probabilities, summing to 1; the argmax stays nearly everywhere.
    """
    shape = target.shape
    guess = probs.argmax(0)
    labels = torch.where(target == ignore_index, guess, target)
    wrong = (guess != labels).float()
    second = torch.where(
        _field(target, 8, 40, generator) > uniform(-1.5, 1, generator), labels, _any_other(probs, generator)
    )
    doubt = uniform(0.3, 1.6, generator) * _field(target, 5, 40, generator) + uniform(-4.5, -2, generator)
    doubt = doubt + uniform(0.5, 3, generator) * _blurred(wrong[None], 2)[0]
    share = 0.5 * torch.sigmoid(doubt)
    one_hot = F.one_hot(guess, len(probs)).permute(2, 0, 1).float()
    other = F.one_hot(second, len(probs)).permute(2, 0, 1).float()
    soft = one_hot * (1 - share) + other * share
    if chance(0.8, generator):
        soft = _blurred(soft, int(uniform(1, 5, generator)))
    if chance(0.5, generator):
        soft = low_resolution(soft, (2, 4, 8)[int(uniform(0, 3, generator))])
    floor = math.exp(uniform(-9, -3, generator))
    soft = (soft + floor * torch.exp(smooth_noise(len(probs), shape, uniform(4, 40, generator), generator))).clamp(
        min=0
    )
    return temperature(normalised(soft), math.exp(uniform(-0.3, 0.3, generator)))


def _blurred(probs: Tensor, radius: int) -> Tensor:
    side = 2 * radius + 1
    return F.avg_pool2d(F.pad(probs[None], (radius,) * 4, mode="replicate"), side, 1)[0]


def _any_other(probs: Tensor, generator: torch.Generator) -> Tensor:
    """(H, W) for every pixel of a class the same other class."""
    rule = torch.randint(len(probs), (len(probs),), generator=generator)
    return rule[probs.argmax(0)]
