"""What the plug-in refiner's networks are made of: a convolution with normalisation, and a residual block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with FiLM from the time embedding (slots) or without (image)."""

    def __init__(self, channels: int, time_channels: int = 0):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        last = nn.BatchNorm2d(channels)
        nn.init.zeros_(last.weight)
        self.norm2: nn.Module = last
        self.film = nn.Linear(time_channels, 2 * channels) if time_channels else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        if self.film is None or time is None:
            y = self.norm1(self.conv1(x))
        else:
            scale, shift = self.film(time).chunk(2, 1)
            if time.shape[0] == 1 and self.conv1.bias is not None:
                # one time for all planes, and no normalisation in between: FiLM is part of the convolution
                factor = scale[0].float() + 1
                bias = torch.addcmul(shift[0].float(), self.conv1.bias, factor)
                y = F.conv2d(x, self.conv1.weight * factor[:, None, None, None], bias, padding=1)
            else:
                y = self.norm1(self.conv1(x))
                y = torch.addcmul(shift[:, :, None, None], y, scale[:, :, None, None] + 1)
        # in place: on a CPU, fresh memory for every sum costs as much as the sum
        y = self.norm2(self.conv2(F.relu_(y)))
        return F.relu_(y.add_(x))


class ConvUnit(nn.Sequential):
    """3x3 convolution, normalisation, ReLU."""

    def __init__(self, cin: int, cout: int, stride: int = 1):
        conv = nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))
