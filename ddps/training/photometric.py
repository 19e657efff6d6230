"""Light, colour and sharpness of a training image, varied at random."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .corruption import chance, uniform


def photometric(image: Tensor, generator: torch.Generator) -> Tensor:
    """Varies brightness, contrast, gamma, colour balance, saturation, blur and noise.

    Args:
        image: (3, H, W) in [0, 1].
        generator: source of every random choice.

    Returns:
        (3, H, W) in [0, 1].
    """
    if chance(0.8, generator):
        gain = math.exp(uniform(-0.5, 0.5, generator))
        balance = torch.exp(0.08 * torch.randn((3, 1, 1), generator=generator))
        image = (image * gain * balance + uniform(-0.08, 0.08, generator)).clamp(0, 1)
    if chance(0.4, generator):
        image = image ** math.exp(uniform(-0.5, 0.5, generator))
    if chance(0.4, generator):
        grey = image.mean(0, keepdim=True)
        image = (grey + (image - grey) * uniform(0, 1.6, generator)).clamp(0, 1)
    if chance(0.05, generator):
        image = 1 - image
    if chance(0.2, generator):
        image = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    if chance(0.3, generator):
        noise = torch.randn(image.shape, generator=generator)
        image = (image + uniform(0.005, 0.05, generator) * noise).clamp(0, 1)
    return image
