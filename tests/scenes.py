"""Small pictures with predictions and feature maps, and one of the paper's models that is small enough for them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps import DDPSConfig
from ddps.config import FeaturesNetwork, InferenceConfig
from ddps.outputs import Refinement

FEATURES = DDPSConfig(
    network=FeaturesNetwork(
        in_channels=(4, 6), channels=8, embed_dim=3, dim=16, dim_mults=(1, 1, 1), out_dim=8, num_classes=5
    ),
    inference=InferenceConfig(steps=3),
)


def scene(height: int = 48, width: int = 64, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth image, and logits of a quarter of its size."""
    generator = torch.Generator().manual_seed(seed)
    image = F.interpolate(torch.rand(1, 3, 8, 8, generator=generator), (height, width), mode="bicubic")[0].clamp(0, 1)
    logits = 3 * torch.randn(1, classes, 5, 5, generator=generator)
    return image, F.interpolate(logits, (height // 4, width // 4), mode="bilinear")[0]


def at_image_size(logits: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(logits[None], image.shape[-2:], mode="bilinear", align_corners=False)[0]


def features(seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 4, 12, 16, generator=generator), torch.randn(1, 6, 6, 8, generator=generator)]


def same(one: Refinement, other: Refinement) -> bool:
    """Bit for bit."""
    names = ("labels", "probs", "uncertainty", "changed")
    return all(np.array_equal(np.asarray(getattr(one, name)), np.asarray(getattr(other, name))) for name in names)
