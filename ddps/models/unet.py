"""The paper's time-conditioned U-Net.

The architecture and its parameter names follow lucidrains/denoising-diffusion-pytorch (MIT), so that released
checkpoints load under their own names; written anew here.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError

GROUPS = 8
HEADS = 4
HEAD_DIM = 32


class Levels(nn.Module):
    """The way through the U-Net, whatever its blocks are made of: `UNet` has them as trained, `StepUNet` as folded."""

    downs: nn.ModuleList
    ups: nn.ModuleList
    mid_block1: nn.Module
    mid_attn: nn.Module
    mid_block2: nn.Module
    final_res_block: nn.Module

    def trunk(self, stem: Tensor, time: Tensor) -> Tensor:
        """From the stem's output to what the last 1x1 convolution reads.

        Args:
            stem: (B, dim, H, W).
            time: what the residual blocks take as the time.

        Returns:
            (B, dim, H, W).
        """
        x = stem
        skips: list[Tensor] = []
        for level in self.downs:
            block1, block2, attention, shrink = cast(nn.ModuleList, level)
            x = block1(x, time)
            skips.append(x)
            x = attention(block2(x, time))
            skips.append(x)
            x = shrink(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            block1, block2, attention, grow = cast(nn.ModuleList, level)
            x = block1(torch.cat([x, skips.pop()], 1), time)
            x = block2(torch.cat([x, skips.pop()], 1), time)
            x = grow(attention(x))
        return self.final_res_block(torch.cat([x, stem], 1), time)


class UNet(Levels):
    """Features and a time in, features of the same height and width out.

    Args:
        channels: input channels.
        dim: base width; a multiple of 8, the number of groups of the normalisation.
        out_dim: output channels.
        dim_mults: width of each level as a multiple of `dim`, finest first; every level but the last halves the sides.

    Raises:
        InputError: a width that is not a multiple of 8.
    """

    def __init__(self, channels: int, dim: int, out_dim: int, dim_mults: Sequence[int]):
        super().__init__()
        widths = [dim, *(dim * m for m in dim_mults)]
        if any(width % GROUPS for width in widths):
            raise InputError(f"U-Net widths that are multiples of {GROUPS}", str(widths), f"dim={-(-dim // 8) * 8}")
        pairs = list(pairwise(widths))
        time_dim = 4 * dim
        self.multiple = 2 ** (len(pairs) - 1)
        self.init_conv = nn.Conv2d(channels, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(
            SinusoidalTime(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level, (fine, coarse) in enumerate(pairs):
            last = level == len(pairs) - 1
            shrink = nn.Conv2d(fine, coarse, 3, padding=1) if last else nn.Conv2d(fine, coarse, 4, 2, 1)
            self.downs.append(
                nn.ModuleList(
                    [
                        ResnetBlock(fine, fine, time_dim),
                        ResnetBlock(fine, fine, time_dim),
                        Residual(fine, LinearAttention(fine)),
                        shrink,
                    ]
                )
            )
        for level, (fine, coarse) in enumerate(reversed(pairs)):
            conv = nn.Conv2d(coarse, fine, 3, padding=1)
            last = level == len(pairs) - 1
            self.ups.append(
                nn.ModuleList(
                    [
                        ResnetBlock(coarse + fine, coarse, time_dim),
                        ResnetBlock(coarse + fine, coarse, time_dim),
                        Residual(coarse, LinearAttention(coarse)),
                        conv if last else nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv),
                    ]
                )
            )
        self.mid_block1 = ResnetBlock(widths[-1], widths[-1], time_dim)
        self.mid_attn = Residual(widths[-1], Attention(widths[-1]))
        self.mid_block2 = ResnetBlock(widths[-1], widths[-1], time_dim)
        self.final_res_block = ResnetBlock(2 * dim, dim, time_dim)
        self.final_conv = nn.Conv2d(dim, out_dim, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Runs the network.

        Args:
            x: (B, channels, H, W); H and W must be multiples of 2^(levels-1), attribute `multiple`.
            time: (B,) network times.

        Returns:
            (B, out_dim, H, W).

        Raises:
            InputError: H or W is not such a multiple.
        """
        height, width = x.shape[-2:]
        if height % self.multiple or width % self.multiple:
            padded = tuple(-(-side // self.multiple) * self.multiple for side in (height, width))
            raise InputError(f"sides in multiples of {self.multiple}", f"{height}x{width}", f"padding to {padded}")
        return self.final_conv(self.trunk(self.init_conv(x), self.embed_time(time, x.dtype)))

    def embed_time(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) network times to (B, 4·dim), what the residual blocks scale and shift by."""
        # Angles need float32; times above 256 are not even whole numbers in bfloat16.
        return self.time_mlp[1:](self.time_mlp[0](time).to(dtype))


class SinusoidalTime(nn.Module):
    """(B,) times to (B, dim): sines, then cosines, of geometrically spaced frequencies from 1 down to 1/10000."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        half = self.dim // 2
        steps = torch.arange(half, device=time.device, dtype=torch.float32)
        angles = time.float()[:, None] * torch.exp(steps * (-math.log(10000) / (half - 1)))
        return torch.cat([angles.sin(), angles.cos()], 1)


class ResnetBlock(nn.Module):
    """Two normalised convolutions, the first scaled and shifted by the time (FiLM), around a residual connection."""

    def __init__(self, dim: int, out_dim: int, time_dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * out_dim))
        self.block1 = Block(dim, out_dim)
        self.block2 = Block(out_dim, out_dim)
        self.res_conv = nn.Conv2d(dim, out_dim, 1) if dim != out_dim else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = rearrange(self.mlp(embedding), "b (two c) -> two b c 1 1", two=2)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class Block(nn.Module):
    """Weight-standardised convolution, group normalisation, optional FiLM, SiLU."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.proj = StandardisedConv(dim, out_dim, 3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, out_dim)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        norm = self.norm
        x = group_norm(self.proj(x), norm.weight, norm.bias, norm.eps)
        if scale is not None and shift is not None:
            x = x * (scale + 1) + shift
        return F.silu(x)


class StandardisedConv(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1 (weight standardisation, arXiv 1903.10520)."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) * (variance + epsilon(input)).rsqrt()
        return self._conv_forward(input, weight, self.bias)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with a gain only."""

    def __init__(self, dim: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * (variance + epsilon(x)).rsqrt() * self.g


class PreNorm(nn.Module):
    """Normalises, then applies `fn`."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """x + fn(norm(x)); the norm sits one level down because the checkpoints' names do."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.fn = PreNorm(dim, fn)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class LinearAttention(nn.Module):
    """Attention whose cost grows linearly with the number of pixels (arXiv 1812.01243)."""

    def __init__(self, dim: int):
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_DIM, dim, 1), ChannelNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k, v = rearrange(self.to_qkv(x), "b (three n c) h w -> three b n c (h w)", three=3, n=HEADS)
        q = q.softmax(dim=-2) * HEAD_DIM**-0.5
        k = k.softmax(dim=-1)
        v = v / (height * width)
        context = torch.einsum("bncp,bnep->bnce", k, v)
        out = torch.einsum("bnce,bncp->bnep", context, q)
        return self.to_out(rearrange(out, "b n e (h w) -> b (n e) h w", h=height))


class Attention(nn.Module):
    """Attention between all pairs of pixels, at the coarsest level only."""

    def __init__(self, dim: int):
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_DIM, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[-2]
        q, k, v = rearrange(self.to_qkv(x), "b (three n c) h w -> three b n (h w) c", three=3, n=HEADS)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b n (h w) c -> b (n c) h w", h=height))


def group_norm(x: Tensor, gain: Tensor, offset: Tensor, smallest: float) -> Tensor:
    """Normalisation of the channels in groups; `F.group_norm` is the same, but refuses a map of a single pixel."""
    return torch.group_norm(x, GROUPS, gain, offset, smallest)


def epsilon(x: Tensor) -> float:
    """The smallest variance trusted in x's precision."""
    return 1e-5 if x.dtype == torch.float32 else 1e-3
