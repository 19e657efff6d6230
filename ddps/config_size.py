"""How large a network a config asks for, from its numbers alone: nothing is built, not even without memory."""

from itertools import pairwise
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from .config import BackboneConfig, FeaturesNetwork

MAX_WEIGHTS = 10**9
"""4 GB as float32; ten times the paper's largest model. Networks conditioned on logits stay below by their widths."""
MAX_BLOCKS = 128
"""Of an encoder, in all stages; MiT-B5 has 52. Every one takes its time to build, however narrow."""


def check_size(network: "FeaturesNetwork", backbone: "BackboneConfig | None") -> None:
    """Refuses a network that is larger than any that somebody would train.

    Raises:
        InputError: more than `MAX_WEIGHTS` weights, or `MAX_BLOCKS` blocks.
    """
    if backbone is not None and sum(backbone.depths) > MAX_BLOCKS:
        raise InputError(
            f"backbone.depths of up to {MAX_BLOCKS} blocks", str(sum(backbone.depths)), "a config that ddps wrote"
        )
    count = head_weights(network) + (0 if backbone is None else backbone_weights(backbone))
    if count > MAX_WEIGHTS:
        raise InputError(f"a network of up to {MAX_WEIGHTS:,} weights", f"{count:,}", "a config that ddps wrote")


def head_weights(network: "FeaturesNetwork") -> int:
    """Weights of the paper's denoiser (`models.paper.FeaturesDenoiser`) without biases and norms: a few per cent less
    than it has.
    """
    dim, channels = network.dim, network.channels
    widths = [dim, *(dim * multiplier for multiplier in network.dim_mults)]

    def block(wide: int, out: int) -> int:
        return 9 * out * (wide + out) + (wide * out if wide != out else 0) + 8 * dim * out

    count = channels * (sum(network.in_channels) + len(network.in_channels) * channels)
    count += network.num_classes * (network.embed_dim + network.out_dim)
    count += 49 * (channels + network.embed_dim) * dim + 20 * dim * dim + dim * network.out_dim
    count += 2 * block(widths[-1], widths[-1]) + block(2 * dim, dim)
    for fine, coarse in pairwise(widths):
        count += 2 * block(fine, fine) + 2 * block(fine + coarse, coarse) + 18 * fine * coarse
    return count


def backbone_weights(backbone: "BackboneConfig") -> int:
    """Weights of a Mix Transformer without biases, norms and depthwise filters."""
    count, below = 0, 3
    for width, depth, ratio, patch in zip(
        backbone.embed_dims, backbone.depths, backbone.sr_ratios, backbone.patch_sizes, strict=True
    ):
        of_block = 4 + 2 * backbone.mlp_ratio + (ratio * ratio if ratio > 1 else 0)
        count += patch * patch * below * width + depth * width * width * of_block
        below = width
    return count
