"""From an image to a mask in one network: a segmentor's encoder and the paper's head.

Source: DDPS, arXiv 2306.01721, section 3.2, with SegFormer's encoder.
"""

import math
from itertools import accumulate
from operator import mul

import torch.nn.functional as F
from torch import Tensor

from ..config import BackboneConfig, FeaturesNetwork, ScheduleConfig
from ..models.paper import FeaturesDenoiser
from .mit import build_backbone


class ImageDenoiser(FeaturesDenoiser):
    """The paper's denoiser with the encoder that feeds it; encoder's names are `backbone.*`.

    Args:
        network: sizes of the head.
        schedule: noise schedule of its tables.
        backbone: sizes of the encoder.

    Raises:
        InputError: sizes that make no network, or no transformers.
    """

    def __init__(self, network: FeaturesNetwork, schedule: ScheduleConfig, backbone: BackboneConfig):
        super().__init__(network, schedule)
        self.backbone = build_backbone(backbone)
        strides = list(accumulate(backbone.strides, mul))
        reduced = [stride * ratio for stride, ratio in zip(strides, backbone.sr_ratios, strict=True)]
        self.multiple = math.lcm(*strides, *reduced, strides[0] * self.unet.multiple)
        """What both sides of an image are padded to a multiple of, in pixels; 32 in the released models."""

    def encode(self, image: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """The encoder's feature maps.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any size; padded at the bottom and on the right with the mean colour,
                as in training, to a multiple of `multiple`.

        Returns:
            The feature maps for `condition`, and the (H, W) that they cover, in pixels.
        """
        height, width = image.shape[-2:]
        pixels = F.pad(self.backbone.normalise(image), (0, -width % self.multiple, 0, -height % self.multiple))
        return self.backbone(pixels), (pixels.shape[-2], pixels.shape[-1])
