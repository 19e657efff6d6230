"""The paper's denoiser for inference: the same function, with what a chain's steps have in common computed once.

`FeaturesDenoiser.forward` is the reference that this is held against. Here

- what depends on the weights only is folded when a `StepNetwork` is made: standardised filters, upsampling and the
  convolution after it as one transposed convolution, the last 1x1 convolution and the classifier as one;
- what depends on the time only is tabulated for all times of the chain: group normalisation's gain and offset with the
  time's scale and shift in them;
- what depends on the image only is computed in `StepNetwork.bind`: the 7x7 stem is linear, so its response to the
  condition is a constant, to which a step adds the response to the embedded mask.

On CPUs, float32's 3x3 convolutions are Winograd's. Every one of these is an identity of real numbers; only the rounding
differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from .paper import FeaturesDenoiser, check_mask
from .unet import (
    HEAD_DIM,
    HEADS,
    Attention,
    Block,
    ChannelNorm,
    Levels,
    LinearAttention,
    PreNorm,
    Residual,
    ResnetBlock,
    StandardisedConv,
    UNet,
    epsilon,
    group_norm,
)
from .winograd import WinogradConv

# A nearest x2 upsampling lays every value on two rows: which rows of a 3x3 filter meet in each row of the 4x4 one.
MEETING_ROWS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))

# modes of torch.compile that record CUDA graphs
GRAPH_MODES = ("reduce-overhead", "max-autotune")


class StepNetwork(nn.Module):
    """A snapshot of a `FeaturesDenoiser` for chains over given times; it shares no memory with the network.

    Make a new one when the weights have changed: at the usual sizes it costs a fraction of a step.

    Args:
        network: its weights and their precision decide the epsilons; its mode does not matter, dropout is never on.
        times: the network times that the chains visit, each once.
        dtype: what steps are computed in, whatever autocast says around them; None for that of the weights. Folding and
            tables are computed in that of the weights.
    """

    embed: Tensor
    row_numbers: Tensor
    stem_of_condition: Tensor
    stem_of_mask: Tensor
    stem_bias: Tensor

    @torch.no_grad()
    def __init__(self, network: FeaturesDenoiser, times: Sequence[int], dtype: torch.dtype | None = None):
        super().__init__()
        unet, own = network.unet, network.embed.weight
        with torch.autocast(own.device.type, enabled=False):
            embeddings = unet.embed_time(torch.tensor(times, device=own.device), own.dtype)
            of_condition, of_mask = unet.init_conv.weight.split([network.network.channels, own.shape[1]], 1)
            self.register_buffer("embed", own)
            self.register_buffer("stem_of_condition", of_condition)
            self.register_buffer("stem_of_mask", of_mask)
            self.register_buffer("stem_bias", unet.init_conv.bias)
            self.levels = StepUNet(unet, embeddings)
            self.classifier = _classifier(unet.final_conv, network.conv_seg_new)
            self._keep(dtype or own.dtype)
        self.multiple = unet.multiple
        self.rows = {i: row for row, i in enumerate(times)}
        # a row's number as a tensor: compiled code is the same for all of them
        self.register_buffer("row_numbers", torch.arange(len(times), device=own.device), persistent=False)
        self._graphs = False

    def _keep(self, dtype: torch.dtype) -> None:
        """Brings all values into the form that steps use, in memory of their own."""
        if self.embed.device.type == "cpu" and dtype == torch.float32:
            for module in list(self.modules()):
                for name, part in module.named_children():
                    if isinstance(part, Conv) and part.is_plain_3x3:
                        setattr(module, name, WinogradConv(part.weight.to(dtype), part.bias.to(dtype, copy=True)))
        for module in self.modules():
            if isinstance(module, WinogradConv):
                continue  # made of new values
            for name, value in module.named_buffers(recurse=False):
                form = torch.channels_last if value.ndim == 4 else torch.contiguous_format
                kept = value.detach().to(dtype, copy=True, memory_format=form)
                module.register_buffer(name, kept, persistent=False)

    @torch.no_grad()
    def bind(self, condition: Tensor, guidance_scale: float = 0.0) -> "BoundNetwork":
        """Computes once what the steps of an image's chains share.

        Args:
            condition: (B, channels, h, w) from `FeaturesDenoiser.condition`, every h, w >= 1.
            guidance_scale: g >= 0 of classifier-free guidance, logits·(1+g) - g·logits of a condition of zeros.
        """
        height, width = condition.shape[-2:]
        device = self.embed.device
        # The reference repeats the last row and column up to a multiple; of the mask that is a choice of rows.
        rows, columns = (
            torch.arange(side + -side % self.multiple, device=device).clamp(max=side - 1) for side in (height, width)
        )
        fits = (len(rows), len(columns)) == (height, width)
        condition = condition.to(device, self.embed.dtype)
        padded = condition if fits else condition[:, :, rows][..., columns]
        with torch.autocast(device.type, enabled=False):
            padded = padded.contiguous(memory_format=torch.channels_last)
            stem = F.conv2d(padded, self.stem_of_condition, self.stem_bias, padding=3)
        shape = (len(condition), height, width)
        return BoundNetwork(self, stem, guidance_scale, shape, None if fits else (rows, columns))

    def compile_steps(self, backend: str = "inductor", mode: str | None = None) -> "StepNetwork":
        """Compiles what a step runs; see `DDPSRefiner.compile`."""
        options = {"mode": mode} if backend == "inductor" else {}
        self.pass_through = torch.compile(self.pass_through, fullgraph=True, backend=backend, **options)  # type: ignore
        self._graphs = mode in GRAPH_MODES
        return self

    def step(self, stem: Tensor, i: int, height: int, width: int) -> Tensor:
        """`pass_through` at network time i, compiled or not; the logits are the caller's own."""
        row = self.row_numbers[self.rows[i]]
        if not self._graphs:
            return self.pass_through(stem, row, height, width)
        # a graph's next replay writes where this one's answer lies
        torch.compiler.cudagraph_mark_step_begin()
        return self.pass_through(stem, row, height, width).clone()

    def pass_through(self, stem: Tensor, row: Tensor, height: int, width: int) -> Tensor:
        """(B, K, h, w) logits from (B, dim, H, W), the stem's output, at the time of a row of the tables."""
        return self.classifier(self.levels.trunk(stem, row)[..., :height, :width])


@dataclass(frozen=True, eq=False)
class BoundNetwork:
    """A `StepNetwork` with the condition of a batch of images bound: the `denoiser(mask, i)` that samplers ask.

    Args:
        network: the folded network.
        stem: (B, dim, H, W) the stem's response to the condition, its bias included, sides padded.
        guidance_scale: g of classifier-free guidance; 0 for none.
        shape: (B, h, w) of the masks.
        padding: (H,) and (W,) int64, which row and column of the mask each padded one shows; None where it fits.
    """

    network: StepNetwork
    stem: Tensor
    guidance_scale: float
    shape: tuple[int, int, int]
    padding: tuple[Tensor, Tensor] | None

    @torch.no_grad()
    def __call__(self, mask: Tensor, i: int, /) -> Tensor:
        """Logits of p(x_0 | mask) at network time i, as `FeaturesDenoiser.forward` gives them.

        Args:
            mask: (B, h, w) int64 states: classes 0 to K-1, and K where an absorbing kernel masked the pixel.
            i: one of the times that the network was made for.

        Returns:
            (B, K, h, w) in the network's dtype.

        Raises:
            InputError: the mask is not int64 or does not have the condition's size, or another time.
        """
        check_mask(mask, self.shape)
        network, (_, height, width) = self.network, self.shape
        if i not in network.rows:
            raise InputError(f"a network time of {list(network.rows)}"[:200], str(i), "a StepNetwork for this time")
        mask = mask.to(self.stem.device)
        if self.padding is not None:
            mask = mask[:, self.padding[0]][..., self.padding[1]]
        with torch.autocast(self.stem.device.type, enabled=False):
            embedded = rearrange(F.embedding(mask, network.embed), "b h w c -> b c h w")
            of_mask = F.conv2d(embedded, network.stem_of_mask, padding=3)
            logits = network.step(of_mask + self.stem, i, height, width)
            if self.guidance_scale:
                # Without a condition, nothing is left of its response but the bias.
                blank = of_mask + network.stem_bias[:, None, None]
                without = network.step(blank, i, height, width)
                logits = logits * (1 + self.guidance_scale) - self.guidance_scale * without
        return logits


class StepUNet(Levels):
    """The levels of a `UNet` with folded blocks; the "time" of `trunk` is a row of their tables.

    Args:
        unet: the network.
        embeddings: (S, 4·dim) its embeddings of the chain's times.
    """

    def __init__(self, unet: UNet, embeddings: Tensor):
        super().__init__()

        def folded(module: nn.Module) -> nn.Module:
            if isinstance(module, nn.ModuleList):
                return nn.ModuleList(folded(part) for part in module)
            if isinstance(module, ResnetBlock):
                return StepBlock(module, embeddings)
            if isinstance(module, Residual):
                return _attention(module)
            if isinstance(module, nn.Sequential):
                return _grow(module)
            assert isinstance(module, nn.Conv2d)
            return Conv(module.weight, module.bias, module.stride[0], int(module.padding[0]))

        self.downs = nn.ModuleList(folded(level) for level in unet.downs)
        self.ups = nn.ModuleList(folded(level) for level in unet.ups)
        self.mid_block1, self.mid_block2 = folded(unet.mid_block1), folded(unet.mid_block2)
        self.mid_attn, self.final_res_block = folded(unet.mid_attn), folded(unet.final_res_block)


class Conv(nn.Module):
    """A convolution whose weight (O, I, k, k) and bias (O,) are given, not learnt; `transposed` takes (I, O, k, k)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, transposed: bool = False):
        super().__init__()
        assert bias is not None
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.stride, self.padding, self.transposed = stride, padding, transposed

    @property
    def is_plain_3x3(self) -> bool:
        return self.weight.shape[2:] == (3, 3) and (self.stride, self.padding, self.transposed) == (1, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        run = F.conv_transpose2d if self.transposed else F.conv2d
        return run(x, self.weight, self.bias, self.stride, self.padding)


class StepBlock(nn.Module):
    """`ResnetBlock` with standardised filters, and one gain and offset per time for normalisation and FiLM.

    (γ·x + β)·(scale + 1) + shift = γ·(scale + 1)·x + (β·(scale + 1) + shift).
    """

    gains: Tensor
    offsets: Tensor
    gain2: Tensor
    offset2: Tensor

    def __init__(self, block: ResnetBlock, embeddings: Tensor):
        super().__init__()
        scales, shifts = rearrange(block.mlp(embeddings), "s (two c) -> two s c", two=2)
        norm1, norm2 = block.block1.norm, block.block2.norm
        self.conv1, self.conv2 = _standardised(block.block1), _standardised(block.block2)
        self.register_buffer("gains", norm1.weight * (scales + 1))
        self.register_buffer("offsets", norm1.bias * (scales + 1) + shifts)
        self.register_buffer("gain2", norm2.weight)
        self.register_buffer("offset2", norm2.bias)
        self.smallest = norm1.eps
        through = block.res_conv
        self.shortcut = Conv(through.weight, through.bias, 1, 0) if isinstance(through, nn.Conv2d) else nn.Identity()

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        gain, offset = self.gains.index_select(0, row)[0], self.offsets.index_select(0, row)[0]
        h = group_norm(self.conv1(x), gain, offset, self.smallest)
        h = group_norm(self.conv2(F.silu(h, inplace=True)), self.gain2, self.offset2, self.smallest)
        return F.silu(h, inplace=True).add_(self.shortcut(x))


class StepLinearAttention(nn.Module):
    """`LinearAttention` with its norms and its residual, over pixels as rows of a matrix.

    The context of an image is a small matrix, which is multiplied into the last projection before it meets the pixels.
    """

    def __init__(self, norm: ChannelNorm, attention: LinearAttention):
        super().__init__()
        to_out, norm_out = attention.to_out
        assert isinstance(norm_out, ChannelNorm)
        self.norm, self.norm_out = StepNorm(norm), StepNorm(norm_out)
        self.to_qkv, self.to_out = Linear(attention.to_qkv), Linear(to_out)

    def forward(self, x: Tensor) -> Tensor:
        pixels = rearrange(x, "b c h w -> b (h w) c")
        q, k, v = self.to_qkv(self.norm(pixels)).chunk(3, -1)
        q = rearrange(rearrange(q, "b p (n c) -> b p n c", n=HEADS).softmax(-1), "b p n c -> b p (n c)")
        k, v = (rearrange(part, "b p (n c) -> b n p c", n=HEADS) for part in (k.softmax(1), v))
        context = (k.transpose(-1, -2) @ v) * (HEAD_DIM**-0.5 / pixels.shape[1])
        projection = rearrange(self.to_out.weight, "o (n e) -> n e o", n=HEADS)
        out = q @ rearrange(context @ projection, "b n c o -> b (n c) o") + self.to_out.bias
        return x + rearrange(self.norm_out(out), "b (h w) c -> b c h w", h=x.shape[-2])


class StepAttention(nn.Module):
    """`Attention` with its norm and its residual, over pixels as rows of a matrix."""

    def __init__(self, norm: ChannelNorm, attention: Attention):
        super().__init__()
        self.norm = StepNorm(norm)
        self.to_qkv, self.to_out = Linear(attention.to_qkv), Linear(attention.to_out)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(self.norm(rearrange(x, "b c h w -> b (h w) c")))
        q, k, v = rearrange(qkv, "b p (three n c) -> three b n p c", three=3, n=HEADS)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "b n p c -> b p (n c)")
        return x + rearrange(self.to_out(out), "b (h w) c -> b c h w", h=x.shape[-2])


class StepNorm(nn.Module):
    """`ChannelNorm` of (B, pixels, C) rows, in one pass."""

    gain: Tensor

    def __init__(self, norm: ChannelNorm):
        super().__init__()
        self.register_buffer("gain", norm.g.flatten())
        self.smallest = epsilon(norm.g)

    def forward(self, rows: Tensor) -> Tensor:
        return F.layer_norm(rows, self.gain.shape, self.gain, None, self.smallest)


class Linear(nn.Module):
    """A 1x1 convolution as a matrix product with (B, pixels, C) rows."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Module):
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        self.register_buffer("weight", conv.weight.flatten(1))
        self.register_buffer("bias", conv.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight, self.bias)


def _standardised(block: Block) -> Conv:
    conv: StandardisedConv = block.proj
    # Layer normalisation of each filter is weight standardisation, in one pass.
    filters = conv.weight.flatten(1)
    weight = F.layer_norm(filters, filters.shape[1:], eps=epsilon(filters)).view(conv.weight.shape)
    return Conv(weight, conv.bias, 1, 1)


def _attention(residual: Residual) -> nn.Module:
    inner: PreNorm = residual.fn
    if isinstance(inner.fn, LinearAttention):
        return StepLinearAttention(inner.norm, inner.fn)
    assert isinstance(inner.fn, Attention)
    return StepAttention(inner.norm, inner.fn)


def _grow(upsample_conv: nn.Sequential) -> Conv:
    """Nearest x2 and a 3x3 convolution (9 products per fine pixel) as a 4x4 transposed one of stride 2 (4 products)."""
    conv = upsample_conv[1]
    assert isinstance(conv, nn.Conv2d)
    rows = torch.tensor(MEETING_ROWS, dtype=conv.weight.dtype, device=conv.weight.device)
    return Conv(torch.einsum("ar,bs,oirs->ioab", rows, rows, conv.weight), conv.bias, 2, 1, transposed=True)


def _classifier(last: nn.Conv2d, classes: nn.Conv2d) -> nn.Module:
    """The last 1x1 convolution and the classifier: one where that takes fewer products, else both."""
    first, second = last.weight.flatten(1), classes.weight.flatten(1)
    (middle, dim), k = first.shape, len(second)
    if dim * k > dim * middle + middle * k:
        return nn.Sequential(Conv(last.weight, last.bias, 1, 0), Conv(classes.weight, classes.bias, 1, 0))
    assert last.bias is not None and classes.bias is not None
    weight = rearrange(second @ first, "k c -> k c 1 1")
    return Conv(weight, second @ last.bias + classes.bias, 1, 0)
