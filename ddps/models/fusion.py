"""SegFormer's feature fusion: feature maps of several strides to one map at the finest.

Source: SegFormer, arXiv 2105.15203, section 3.2; names as in mmsegmentation (Apache-2.0).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvUnit(nn.Module):
    """1x1 convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class FeatureFusion(nn.Module):
    """Each map to `channels`, all to the finest map's size, concatenated, and back to `channels`.

    Args:
        in_channels: channels of each feature map, finest first.
        channels: channels of the result.
    """

    def __init__(self, in_channels: Sequence[int], channels: int):
        super().__init__()
        self.convs = nn.ModuleList(ConvUnit(width, channels) for width in in_channels)
        self.fusion_conv = ConvUnit(len(in_channels) * channels, channels)

    def fuse(self, features: Sequence[Tensor]) -> Tensor:
        """(B, in_channels[j], h_j, w_j) maps, finest first, to (B, channels, h_0, w_0)."""
        size = features[0].shape[-2:]
        maps = [conv(feature) for conv, feature in zip(self.convs, features, strict=True)]
        resized = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in maps]
        return self.fusion_conv(torch.cat(resized, 1))
