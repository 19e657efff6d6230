"""The class-agnostic denoiser: one plane per candidate class, shared weights, exactly slot-equivariant.

Every candidate class ("slot") of an image is one plane with three channels: the segmentor's probability, its
log-odds against the best other slot, and whether the noised mask x_t shows this slot. All planes pass through
the same U-Net. Planes talk through pooled messages (mean and maximum over the slots) and all see the same
image features, so permuting the classes permutes the answer, and any number of slots works. The network
predicts a change of the segmentor's log-probabilities: untrained, it returns them as they are.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import LogitsNetwork
from .class_evidence import ClassEvidence, evidence_of_slots
from .strips import finish_in_strips
from .units import ConvUnit, ResidualBlock

T = TypeVar("T", bound=nn.Module)
TIME_CHANNELS = 64
PROBABILITY_FLOOR = 1e-4
# grey level of the image that stands for "no image" in classifier-free guidance
BLANK = 0.45
# log-weight, in x2 upsampling, of neighbours that bilinear interpolation would not look at
FAR = -6.0
PADDING = -1e4


@dataclass
class Known:
    """What a network that knows its classes by name adds to a condition."""

    logits: Tensor  # (B, K, H/4, W/4) of the classes
    evidence: Tensor  # (B, S, H/2, W/2) their log-probabilities as slots
    planes: Tensor  # (N, C, H/2, W/2) what is added to the slots' embedded planes


@dataclass
class Condition:
    """What a denoising run computes once: image features per level, evidence of the segmentor, valid slots."""

    features: list[Tensor]  # per level (B, C_l, H / 2^(l+1), W / 2^(l+1))
    probs: Tensor  # (B, S, H, W) segmentor's probabilities of the slots, image scale
    coarse: Tensor  # (B, S, H/2, W/2) segmentor's probabilities at stride 2
    log_odds: Tensor  # (B, S, H/2, W/2) against the best other slot, scaled to about [-1, 1]
    valid: Tensor | None  # (B, S) bool, None when no slot is padding
    counts: list[int]  # slots of each image; empty when no slot is padding
    known: Known | None = None  # of networks that know their classes by name

    @property
    def slots(self) -> int:
        """S, padding included."""
        return self.probs.shape[1]

    def pack(self, by_image: Tensor) -> Tensor:
        """(B, S, ...) to (N, ...), the planes of all images without padding."""
        return by_image.flatten(0, 1) if self.valid is None else by_image[self.valid]

    def unpack(self, planes: Tensor) -> Tensor:
        """(N, ...) back to (B, S, ...), padding slots at -1e4."""
        if self.valid is None:
            return planes.unflatten(0, (-1, self.slots))
        padded = planes.new_full((*self.valid.shape, *planes.shape[1:]), PADDING)
        padded[self.valid] = planes
        return padded

    def pooled(self, planes: Tensor) -> Tensor:
        """Mean and maximum over the slots of each image: (N, C, H, W) to (B, 2C, H, W)."""
        if self.valid is None:
            by_image = planes.unflatten(0, (-1, self.slots))
            if _is_plain_cpu(planes):
                return _running_pool(by_image)
            return torch.cat([by_image.mean(1), by_image.amax(1)], 1)
        parts = planes.split(self.counts)
        return torch.stack([torch.cat([part.mean(0), part.amax(0)]) for part in parts])

    def modulate(self, planes: Tensor, gate: Tensor, shared: Tensor) -> Tensor:
        """Each plane times its image's gate (B, C, H, W) plus its image's shared features."""
        if self.valid is None and gate.shape[0] == 1:
            return torch.addcmul(shared, planes, gate)
        if self.valid is None:
            by_image = planes.unflatten(0, (-1, self.slots))
            return torch.addcmul(shared[:, None], by_image, gate[:, None]).flatten(0, 1)
        parts = zip(planes.split(self.counts), gate, shared, strict=True)
        return torch.cat([torch.addcmul(s, part, g) for part, g, s in parts])


def _is_plain_cpu(x: Tensor) -> bool:
    """Whether to help a CPU by hand: gradients forbid it, and a compiler does it itself."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _running_pool(by_image: Tensor) -> Tensor:
    """Mean and maximum over axis 1, slot by slot: a CPU reduces an outer axis in bfloat16 twenty times slower."""
    total, largest = by_image[:, 0].to(torch.float32, copy=True), by_image[:, 0].clone()
    for slot in range(1, by_image.shape[1]):
        total.add_(by_image[:, slot])
        torch.maximum(largest, by_image[:, slot], out=largest)
    return torch.cat([total.div_(by_image.shape[1]).to(largest.dtype), largest], 1)


@dataclass
class Denoised:
    """One pass of the network."""

    logits: Tensor  # (B, S, H/2, W/2), padding slots at -1e4
    upsample: Tensor  # (B, 36, H/2, W/2) logits of the weights of nine neighbours, for each of four sub-pixels
    detail: Tensor  # (B, 4, H/2, W/2) share of the segmentor's fine detail, less 1, for each sub-pixel


class ImageEncoder(nn.Module):
    """RGB to one feature map per level (strides 2, 4, 8, ...), each enriched from the level below it."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(12, widths[0]), ResidualBlock(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(ConvUnit(a, b, 2), ResidualBlock(b), ResidualBlock(b)) for a, b in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(ResidualBlock(a) for a in widths[:-1])

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.stem(F.pixel_unshuffle((image - BLANK) * 4, 2))]
        for down in self.down:
            maps.append(down(maps[-1]))
        for level in range(len(maps) - 2, -1, -1):
            lifted = F.interpolate(self.lateral[level](maps[level + 1]), scale_factor=2.0, mode="nearest")
            maps[level] = self.merge[level](lifted.add_(maps[level]))
        return maps


class SlotBlock(nn.Module):
    """Mixes image features and the pooled messages of all slots into every plane, then a residual block."""

    def __init__(self, image_width: int, width: int):
        super().__init__()
        self.message = nn.Conv2d(image_width + 2 * width, width, 1)
        self.gate = nn.Conv2d(image_width, width, 1)
        self.block = ResidualBlock(width, TIME_CHANNELS)

    def forward(self, planes: Tensor, image: Tensor, time: Tensor, condition: Condition) -> Tensor:
        shared = self.message(torch.cat([image, condition.pooled(planes)], 1))
        gate = 2 * torch.sigmoid(self.gate(image))
        answer: Tensor = self.block(F.relu_(condition.modulate(planes, gate, shared)), time)
        return answer


class SlotUNet(nn.Module):
    """Denoiser p(x_0 | x_t, image, segmentor) over any number of slots; mask grid at stride 2.

    Args:
        config: widths per level and the most slots that one tile uses.
    """

    def __init__(self, config: LogitsNetwork):
        super().__init__()
        self.config = config
        image, slot = config.image_widths, config.slot_widths
        self.image_encoder = ImageEncoder(image)
        self.time_mlp = nn.Sequential(nn.Linear(32, TIME_CHANNELS), nn.SiLU(), nn.Linear(TIME_CHANNELS, TIME_CHANNELS))
        self.embed = ConvUnit(3, slot[0])
        self.down = nn.ModuleList(ConvUnit(a, b, 2) for a, b in pairwise(slot))
        self.encode = nn.ModuleList(SlotBlock(i, s) for i, s in zip(image[1:], slot[1:], strict=True))
        self.lift = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(slot))
        self.decode = nn.ModuleList(SlotBlock(i, s) for i, s in zip(image[:-1], slot[:-1], strict=True))
        self.change = nn.Conv2d(slot[0], 1, 3, padding=1)
        # per pixel, shared by all slots: trust in the segmentor, upsampling weights, share of its fine detail
        self.trust = nn.Conv2d(image[0] + 2 * slot[0], 1, 3, padding=1)
        self.upsample = nn.Conv2d(image[0] + 2 * slot[0], 4 * 9, 3, padding=1)
        self.detail = nn.Conv2d(image[0] + 2 * slot[0], 4, 3, padding=1)
        self._start_as_identity()
        if config.classes:
            # at zero, the network is the class-agnostic one that its other weights make
            self.classes = ClassEvidence(config.classes, image)
            self.identity = nn.Embedding.from_pretrained(torch.zeros(config.classes + 1, slot[0]), freeze=False)
            self.inform = nn.Conv2d(2, slot[0], 3, padding=1, bias=False)
            self.lean = nn.Conv2d(image[0] + 2 * slot[0], 1, 3, padding=1)
            self.lean.bias = nn.Parameter(torch.zeros(1))
            for head in (self.inform, self.lean):
                nn.init.zeros_(head.weight)

    def _start_as_identity(self) -> None:
        for head in (self.change, self.trust, self.upsample, self.detail):
            nn.init.zeros_(head.weight)
            head.bias = nn.Parameter(torch.zeros(head.out_channels))
        self.upsample.bias = nn.Parameter(bilinear_log_weights().flatten())

    def condition(
        self, image: Tensor, probs: Tensor, valid: Tensor | None = None, classes: Tensor | None = None
    ) -> Condition:
        """Computes once what does not change between steps.

        Args:
            image: (B, 3, H, W) in [0, 1], RGB; H and W multiples of `config.stride`.
            probs: (B, S, H, W) the segmentor's probabilities of the slots, summing to 1 over the valid ones.
            valid: (B, S) bool, False for padding slots; None means all are valid.
            classes: (B, S) int64, the class in every slot, K for "other" and padding; only networks that know their
                K classes by name (`config.classes`) look at it, and they need it.
        """
        coarse = F.avg_pool2d(probs, 2)
        condition = Condition(
            features=self.image_encoder(image),
            probs=probs,
            coarse=coarse,
            log_odds=log_odds_against_best(coarse.clamp(min=PROBABILITY_FLOOR).log()) / 8,
            valid=valid,
            counts=[] if valid is None else valid.sum(1).tolist(),
        )
        if self.config.classes and classes is not None:
            condition.known = self._know(condition, probs, classes)
        return condition

    def _know(self, condition: Condition, probs: Tensor, classes: Tensor) -> Known:
        logits = self.classes(condition.features, probs, classes)
        # how far to trust it is another question than what it says: this answer must not change that one
        evidence = evidence_of_slots(logits.detach(), classes)
        seen = torch.stack([evidence.exp(), log_odds_against_best(evidence) / 8], 2)
        planes = self.inform(condition.pack(seen).contiguous(memory_format=torch.channels_last))
        return Known(logits, evidence, planes + self.identity(condition.pack(classes))[:, :, None, None])

    def forward(self, mask: Tensor, step: Tensor | int, condition: Condition) -> Tensor:
        """Logits of p(x_0 | x_t) at image scale: `denoise`, then `finish`."""
        return self.finish(self.denoise(mask, step, condition), condition)

    def denoise(self, mask: Tensor, step: Tensor | int, condition: Condition) -> Denoised:
        """One pass at stride 2.

        Args:
            mask: (B, H/2, W/2) int64, the noised mask x_t in slot indices.
            step: network time i in 0..T-1 (0 is the noisiest), a number or (B,).
            condition: from `condition`.

        Returns:
            The logits of p(x_0 | x_t), and what `finish` needs to bring them to image scale.
        """
        slots = condition.slots
        step = torch.as_tensor(step, device=mask.device).expand(mask.shape[0])
        time = self.time_mlp(sinusoidal(step, 32))
        if time.shape[0] > 1 or condition.valid is not None:
            time = condition.pack(repeat(time, "b c -> b s c", s=slots))
        shown = mask[:, None] == torch.arange(slots, device=mask.device)[:, None, None]
        planes = torch.stack([condition.coarse, condition.log_odds, shown.to(condition.coarse.dtype)], 2)
        planes = condition.pack(planes).contiguous(memory_format=torch.channels_last)
        features = condition.features

        known = condition.known
        skips = [self.embed(planes) if known is None else self.embed(planes) + known.planes]
        for down, encode, image in zip(self.down, self.encode, features[1:], strict=True):
            skips.append(encode(down(skips[-1]), image, time, condition))
        planes = skips.pop()
        for level in range(len(skips) - 1, -1, -1):
            lifted = F.interpolate(self.lift[level](planes), scale_factor=2.0, mode="nearest")
            planes = self.decode[level](lifted.add_(skips[level]), features[level], time, condition)
        shared = torch.cat([features[0], condition.pooled(planes)], 1)
        change = condition.unpack(self.change(planes)[:, 0].float())
        base = condition.coarse.clamp(min=PROBABILITY_FLOOR).log()
        if known is not None:
            change = change + self.lean(shared).float() * known.evidence
        trust, upsample, detail = self._heads(shared)
        return Denoised(hide_padding(base * (1 + trust.float()) + change, condition), upsample, detail)

    def _heads(self, shared: Tensor) -> tuple[Tensor, ...]:
        """Trust, upsampling and detail, in one convolution."""
        heads = (self.trust, self.upsample, self.detail)
        weight = torch.cat([head.weight for head in heads])
        bias = torch.cat([head.bias for head in heads if head.bias is not None])
        return F.conv2d(shared, weight, bias, padding=1).split([head.out_channels for head in heads], 1)

    def finish(self, denoised: Denoised, condition: Condition) -> Tensor:
        """Stride-2 logits to image scale, (B, S, H, W): guided upsampling plus the segmentor's own fine detail."""
        weights, share = denoised.upsample, denoised.detail
        base = condition.coarse.clamp(min=PROBABILITY_FLOOR).log()
        probs = condition.probs.clamp(min=PROBABILITY_FLOOR)
        if _is_plain_cpu(probs):
            parts = zip(denoised.logits, base, probs, weights, share, strict=True)
            return hide_padding(torch.stack([finish_in_strips(*part) for part in parts]), condition)
        weights = rearrange(weights.float(), "b (n k) h w -> b n k h w", k=9).softmax(2)
        detail = probs.log() - F.interpolate(base, scale_factor=2.0, mode="bilinear", align_corners=False)
        share = F.pixel_shuffle(1 + share.float(), 2)
        return hide_padding(convex_upsample(denoised.logits, weights) + share * detail, condition)


def channels_last(network: T) -> T:
    """The network with its convolution weights laid out as CPUs and tensor cores like them, in place."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def hide_padding(logits: Tensor, condition: Condition) -> Tensor:
    """Padding slots at -1e4, so that no softmax gives them any probability."""
    if condition.valid is None:
        return logits
    return logits.masked_fill(~condition.valid[:, :, None, None], PADDING)


def log_odds_against_best(log_probs: Tensor) -> Tensor:
    """(B, S, H, W) log p_k - max over j != k of log p_j."""
    if log_probs.shape[1] == 1:
        return log_probs - math.log(PROBABILITY_FLOOR)
    if _is_plain_cpu(log_probs):
        # there topk is slow over an axis that is not the last
        best, second = torch.maximum(log_probs[:, 0], log_probs[:, 1]), torch.minimum(log_probs[:, 0], log_probs[:, 1])
        for values in log_probs.unbind(1)[2:]:
            second = torch.maximum(second, torch.minimum(values, best))
            best = torch.maximum(best, values)
    else:
        best, second = log_probs.topk(2, dim=1).values.unbind(1)
    others = torch.where(log_probs == best[:, None], second[:, None], best[:, None])
    return log_probs - others


def sinusoidal(step: Tensor, channels: int) -> Tensor:
    """(B, channels) sines and cosines of the network time."""
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=step.device) * (-math.log(1000.0) / (half - 1)))
    angles = step[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def bilinear_log_weights() -> Tensor:
    """(4, 9) logits whose softmax is, nearly, x2 bilinear upsampling: 4 sub-pixels, 3x3 neighbours."""
    near, far = math.log(0.75), math.log(0.25)
    axis = {0: (far, near, FAR), 1: (FAR, near, far)}
    rows = [[axis[dy][y] + axis[dx][x] for y in range(3) for x in range(3)] for dy in (0, 1) for dx in (0, 1)]
    return torch.tensor(rows)


def convex_upsample(logits: Tensor, weights: Tensor) -> Tensor:
    """x2 upsampling by predicted convex combinations of 3x3 neighbours (after RAFT, arXiv 2003.12039).

    Args:
        logits: (B, S, h, w).
        weights: (B, 4, 9, h, w), summing to 1 over the nine neighbours.
    """
    height, width = logits.shape[-2:]
    padded = F.pad(logits, (1, 1, 1, 1), mode="replicate")
    total = torch.zeros((), dtype=logits.dtype, device=logits.device)
    for k in range(9):
        neighbour = padded[:, :, k // 3 : k // 3 + height, k % 3 : k % 3 + width]
        total = total + neighbour[:, :, None] * weights[:, None, :, k]
    return rearrange(total, "b s (dy dx) h w -> b s (h dy) (w dx)", dy=2, dx=2)
