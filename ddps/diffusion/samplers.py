"""From a noisy mask to an answer, in a few passes of any denoiser.

A sampler is a plain function. It asks `denoiser(mask, i)` for the logits of p(x_0 | x_n) at network time i, where the
mask holds noise index n = T-1-i; whatever else the network looks at is bound inside the denoiser. Nothing in the
loops waits for the accelerator, unless an early exit is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from .draws import Generators, draw_categorical
from .kernels import Kernel
from .schedules import Schedule, network_steps, noise_index


class Denoiser(Protocol):
    """`denoiser(mask (B, h, w) int64, i)` gives the logits (B, K, h, w) of p(x_0 | mask); -inf on padding channels."""

    def __call__(self, mask: Tensor, i: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Step:
    """One pass of the network, as a callback sees it.

    Args:
        index: 0, 1, 2, ... within the chain.
        i: network time, 0 (noise) to T-1 (clean).
        mask: (B, h, w) int64, what the network was given.
        logits: (B, K, h, w), what it answered.
    """

    index: int
    i: int
    mask: Tensor
    logits: Tensor


Callback = Callable[[Step], None]


def free(
    denoiser: Denoiser,
    prediction: Tensor | None,
    kernel: Kernel,
    schedule: Schedule,
    steps: int | Sequence[int],
    generators: Generators,
    callback: Callback | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    device: torch.device | str = "cpu",
    early_exit: float = 0.0,
) -> Tensor:
    """Free re-noising: x̂_0 = argmax p_θ(x_0 | x_n), then a fresh draw x_n' ~ q(x_n' | x̂_0) at the next time's n'.

    Source: DDPS, arXiv 2306.01721, section 3.4.

    Args:
        denoiser: the network with its condition bound.
        prediction: (B, h, w) int64 first prediction, from whose noised version the chain starts; None starts from pure
            noise, as the paper does.
        kernel: the kind of noise.
        schedule: the amount of noise.
        steps: number of passes, see `network_steps`, or the network times themselves, increasing.
        generators: one per image, or None for torch's global generator.
        callback: called after each pass.
        shape: (B, h, w) of the mask, where there is no prediction.
        device: of the mask, where there is no prediction.
        early_exit: the chain ends once no more than this share of any image's pixels, in [0, 1), has another likeliest
            class than a pass before; 0 for never. Looking that up waits for the accelerator.

    Returns:
        (B, K, h, w) logits of the last pass.

    Raises:
        InputError: no steps or unordered ones, neither prediction nor shape, or not one generator per image.
    """
    times = times_of(schedule, steps)
    mask = start_mask(prediction, kernel, schedule, times[0], generators, shape, device)
    logits = run_pass(denoiser, mask, 0, times[0], callback)
    for index, i in enumerate(times[1:], start=1):
        alpha_bar = float(schedule.alpha_bar[noise_index(schedule.num_steps, i)])
        labels = logits.argmax(1)
        mask = kernel.sample(labels, alpha_bar, generators)
        logits = run_pass(denoiser, mask, index, i, callback)
        if early_exit and is_settled(labels, logits, early_exit):
            break
    return logits


def posterior(
    denoiser: Denoiser,
    prediction: Tensor | None,
    kernel: Kernel,
    schedule: Schedule,
    steps: int | Sequence[int],
    generators: Generators,
    callback: Callback | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    device: torch.device | str = "cpu",
    early_exit: float = 0.0,
) -> Tensor:
    """The strict scheme: x_s ~ Σ_i p_θ(x_0 = i | x_n) q(x_s | x_n, x_0 = i), s < n the next time's noise index.

    Source: D3PM, arXiv 2107.03006, equations 3 and 4, with the composed kernel across strided steps.

    Args:
        denoiser: the network with its condition bound.
        prediction: (B, h, w) int64 first prediction, from whose noised version the chain starts; None starts from pure
            noise.
        kernel: the kind of noise.
        schedule: the amount of noise.
        steps: number of passes, see `network_steps`, or the network times themselves, increasing.
        generators: one per image, or None for torch's global generator.
        callback: called after each pass.
        shape: (B, h, w) of the mask, where there is no prediction.
        device: of the mask, where there is no prediction.
        early_exit: the chain ends once no more than this share of any image's pixels, in [0, 1), has another likeliest
            class than a pass before; 0 for never. Looking that up waits for the accelerator.

    Returns:
        (B, K, h, w) logits of the last pass.

    Raises:
        InputError: no steps or unordered ones, neither prediction nor shape, or not one generator per image.
    """
    times = times_of(schedule, steps)
    mask = start_mask(prediction, kernel, schedule, times[0], generators, shape, device)
    logits = run_pass(denoiser, mask, 0, times[0], callback)
    for index, i in enumerate(times[1:], start=1):
        n, s = noise_index(schedule.num_steps, times[index - 1]), noise_index(schedule.num_steps, i)
        probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
        mask = draw_categorical(kernel.posterior(mask, probs, n, s, schedule), generators)
        labels = logits.argmax(1) if early_exit else mask
        logits = run_pass(denoiser, mask, index, i, callback)
        if early_exit and is_settled(labels, logits, early_exit):
            break
    return logits


def single(
    denoiser: Denoiser,
    prediction: Tensor | None,
    kernel: Kernel,
    schedule: Schedule,
    generators: Generators,
    callback: Callback | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One pass at the noisiest time, p_θ(x_0 | x_{T-1}): the paper's single-step model.

    ᾱ_{T-1} is 0.000009, so a mask noised to there is pure noise whatever the prediction was.

    Args:
        denoiser: the network with its condition bound.
        prediction: (B, h, w) int64 first prediction, or None.
        kernel: the kind of noise.
        schedule: the amount of noise.
        generators: one per image, or None for torch's global generator.
        callback: called after the pass.
        shape: (B, h, w) of the mask, where there is no prediction.
        device: of the mask, where there is no prediction.

    Returns:
        (B, K, h, w) logits.

    Raises:
        InputError: neither prediction nor shape, or not one generator per image.
    """
    return free(denoiser, prediction, kernel, schedule, [0], generators, callback, shape=shape, device=device)


def times_of(schedule: Schedule, steps: int | Sequence[int]) -> Sequence[int]:
    """The network times of a chain, from their number or from themselves, checked.

    Raises:
        InputError: no steps, unordered ones, or ones that the schedule does not have.
    """
    if isinstance(steps, int):
        return network_steps(schedule.num_steps, steps)
    increasing = all(a < b for a, b in pairwise(steps))
    if not steps or not increasing or steps[0] < 0 or steps[-1] >= schedule.num_steps:
        raise InputError(
            f"increasing network times from 0 to {schedule.num_steps - 1}", str(list(steps))[:60], "a number of steps"
        )
    return steps


def start_mask(
    prediction: Tensor | None,
    kernel: Kernel,
    schedule: Schedule,
    i: int,
    generators: Generators,
    shape: tuple[int, int, int] | None,
    device: torch.device | str,
) -> Tensor:
    """The mask that the first pass sees: a first prediction noised to time i's level, or noise.

    Raises:
        InputError: neither prediction nor shape.
    """
    if prediction is not None:
        return kernel.sample(prediction, float(schedule.alpha_bar[noise_index(schedule.num_steps, i)]), generators)
    if shape is None:
        raise InputError("a first prediction, or the shape (B, h, w) of the mask", "neither", "shape=(1, 64, 64)")
    return kernel.prior(shape, generators, device)


def run_pass(denoiser: Denoiser, mask: Tensor, index: int, i: int, callback: Callback | None) -> Tensor:
    """Asks the denoiser, and tells the callback."""
    logits = denoiser(mask, i)
    if callback is not None:
        callback(Step(index, i, mask, logits))
    return logits


def is_settled(labels: Tensor, logits: Tensor, share: float) -> bool:
    """Whether at most this share of every image's pixels has another likeliest class than `labels`, (B, h, w)."""
    changed = (logits.argmax(1) != labels).flatten(1).float().mean(1)
    return bool((changed <= share).all())
