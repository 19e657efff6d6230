"""Random numbers, image by image.

Each image draws from its own generator, on the generator's device, and the result is then moved: an image's noise
depends neither on what shares its batch nor, with CPU generators, on where the network runs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError

Generators = Sequence[torch.Generator] | None


def draw_uniform(shape: tuple[int, int, int], generators: Generators, device: torch.device | str) -> Tensor:
    """One uniform number per pixel.

    Args:
        shape: (B, H, W).
        generators: one per image, or None for torch's global generator of `device`.
        device: where the numbers go.

    Returns:
        (B, H, W) float32 in [0, 1).

    Raises:
        InputError: the number of generators is not B.
    """
    return _draw(lambda _, size, g, d: torch.rand(size, generator=g, device=d), shape, generators, device)


def draw_classes(
    counts: Sequence[int], shape: tuple[int, int, int], generators: Generators, device: torch.device | str
) -> Tensor:
    """One class per pixel, all classes equally likely.

    Args:
        counts: number of classes of each image, B values.
        shape: (B, H, W).
        generators: one per image, or None for torch's global generator of `device`.
        device: where the classes go.

    Returns:
        (B, H, W) int64; image b holds 0 to counts[b] - 1.

    Raises:
        InputError: the number of generators is not B.
    """
    return _draw(lambda b, size, g, d: torch.randint(counts[b], size, generator=g, device=d), shape, generators, device)


def draw_categorical(probs: Tensor, generators: Generators) -> Tensor:
    """Draws a state per pixel by inverting the cumulative distribution at one uniform number: O(K) per pixel.

    Args:
        probs: (B, K, H, W) non-negative; need not be normalised.
        generators: one per image, or None for torch's global generator.

    Returns:
        (B, H, W) int64 on the device of `probs`; a state of probability 0 is never drawn.

    Raises:
        InputError: the number of generators is not B.
    """
    batch, _, height, width = probs.shape
    cumulative = probs.cumsum(1)
    level = draw_uniform((batch, height, width), generators, probs.device) * cumulative[:, -1]
    drawn = (cumulative <= level[:, None]).sum(1).clamp_(max=probs.shape[1] - 1)
    # Rounding can lift the level to the total itself, or let a parallel sum dip: about one pixel in 10^7.
    possible = probs.gather(1, drawn[:, None])[:, 0] > 0
    return torch.where(possible, drawn, probs.argmax(1))


def _draw(
    draw: Callable[[int, tuple[int, int], torch.Generator | None, torch.device | str], Tensor],
    shape: tuple[int, int, int],
    generators: Generators,
    device: torch.device | str,
) -> Tensor:
    batch, height, width = shape
    if generators is None:
        return torch.stack([draw(b, (height, width), None, device) for b in range(batch)])
    if len(generators) != batch:
        raise InputError(f"one generator for each of the {batch} images", f"{len(generators)}", "one per image")
    # From the host the copy may overlap; towards the host it must be waited for.
    overlap = torch.device(device).type != "cpu"
    images = [draw(b, (height, width), g, g.device) for b, g in enumerate(generators)]
    return torch.stack([image.to(device, non_blocking=overlap) for image in images])
