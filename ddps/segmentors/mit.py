"""The Mix Transformer (MiT), SegFormer's encoder, run by transformers under mmsegmentation's parameter names.

Source: SegFormer, arXiv 2105.15203, section 3.1.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..config import BackboneConfig
from ..errors import InputError, one_line
from .mmseg_names import from_mmseg, names_of, to_mmseg

# mmsegmentation's, and the authors'; transformers leaves torch's 1e-5.
NORM_EPSILON = 1e-6
INSTALL = "pip install 'ddps[transformers]'"
SIZES = {
    "MiT-B0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "MiT-B1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "MiT-B2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "MiT-B3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "MiT-B4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "MiT-B5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
"""Widths and depths of the published encoders (SegFormer, table 6)."""


class MixVisionTransformer(nn.Module):
    """MiT-B0 to B5, or any other sizes.

    Its state dict has mmsegmentation's names (`layers.0.0.projection.weight`, ...), independent of the version of
    transformers. Query, key and value share a tensor there, which is a copy: change weights by loading a state dict.

    Args:
        config: sizes, and how pixels are normalised.

    Raises:
        InputError: transformers is not installed, or a version whose names are not known.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.encoder = _build_encoder(config)
        present = self.encoder.state_dict()
        self._shapes = {name: value.shape for name, value in present.items()}
        names = names_of(config.depths, set(present))
        if names is None:
            import transformers

            raise InputError("a version of transformers that ddps knows", str(transformers.__version__), INSTALL)
        self._names = names
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to what `forward` takes: (255 · image - mean) / std per channel."""
        return (255 * image - self.mean) / self.std

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of every stage.

        Args:
            pixels: (B, 3, H, W) normalised RGB; every side at least the product of a stage's total stride and its
                sr_ratio, 32 pixels in B0 to B5.

        Returns:
            (B, embed_dims[j], h_j, w_j) for every stage j, at strides 4, 8, 16, 32.
        """
        return list(self.encoder(pixel_values=pixels, output_hidden_states=True).hidden_states)

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """As torch's, under mmsegmentation's names."""
        own = to_mmseg(self._names, self.encoder.state_dict(keep_vars=keep_vars))
        state = {} if destination is None else destination
        state.update({prefix + name: value for name, value in own.items()})
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Before torch hands the rest to the encoder, it gets its own names; what is unknown stays, to be reported.
        ours = {name: state_dict.pop(prefix + name) for name in self._names if prefix + name in state_dict}
        for name, value in from_mmseg(self._names, ours, self._shapes).items():
            state_dict[f"{prefix}encoder.{name}"] = value
        super()._load_from_state_dict(state_dict, prefix, *args)


def build_backbone(config: BackboneConfig) -> MixVisionTransformer:
    """The encoder that a config describes, with random weights.

    Raises:
        InputError: transformers is not installed, or a version whose names are not known.
    """
    return MixVisionTransformer(config)


def _build_encoder(config: BackboneConfig) -> nn.Module:
    try:
        from transformers import SegformerConfig, SegformerModel
    except ImportError as error:
        raise InputError("the package transformers, which runs the encoder", one_line(error), INSTALL) from error
    stages = len(config.embed_dims)
    encoder: nn.Module = SegformerModel(
        SegformerConfig(
            num_encoder_blocks=stages,
            depths=list(config.depths),
            sr_ratios=list(config.sr_ratios),
            hidden_sizes=list(config.embed_dims),
            patch_sizes=list(config.patch_sizes),
            strides=list(config.strides),
            num_attention_heads=list(config.num_heads),
            mlp_ratios=[config.mlp_ratio] * stages,
            drop_path_rate=0.0,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    for name, module in encoder.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = NORM_EPSILON
        if not config.qkv_bias and isinstance(module, nn.Linear) and ".attention." in name:
            # mmsegmentation's option takes the output projection's bias with it.
            module.bias = cast(nn.Parameter, None)
    return encoder


def size_name(config: BackboneConfig) -> str:
    """The published name of these sizes, such as "MiT-B2"; "MiT" for others."""
    found = [name for name, sizes in SIZES.items() if sizes == (config.embed_dims, config.depths)]
    return found[0] if found else "MiT"


def config_of(shapes: Mapping[str, torch.Size]) -> BackboneConfig:
    """The config of a Mix Transformer, told by the shapes of its tensors.

    A stage's stride follows from its patches, which overlap by half (7 → 4, 3 → 2), and its heads from its width: all
    heads are as wide as the first stage, which has one.

    Args:
        shapes: mmsegmentation's name → shape.

    Raises:
        InputError: the tensors are no Mix Transformer's.
    """
    try:
        widths: list[int] = []
        sizes: list[int] = []
        while f"layers.{len(widths)}.0.projection.weight" in shapes:
            width, _, size, _ = shapes[f"layers.{len(widths)}.0.projection.weight"]
            widths.append(width)
            sizes.append(size)
        blocks = [f"layers.{stage}.1.0" for stage in range(len(widths))]
        ratios = {shapes[f"{block}.ffn.layers.0.weight"][0] / w for block, w in zip(blocks, widths, strict=True)}
        if len(ratios) != 1 or any(width % widths[0] for width in widths) or not all(size % 2 for size in sizes):
            raise ValueError
        no_reduction = torch.Size((1, 1, 1, 1))
        config = BackboneConfig(
            embed_dims=tuple(widths),
            depths=tuple(_blocks(shapes, stage) for stage in range(len(widths))),
            num_heads=tuple(width // widths[0] for width in widths),
            sr_ratios=tuple(shapes.get(f"{block}.attn.sr.weight", no_reduction)[2] for block in blocks),
            patch_sizes=tuple(sizes),
            strides=tuple((size + 1) // 2 for size in sizes),
            mlp_ratio=int(ratios.pop()),
            qkv_bias=f"{blocks[0]}.attn.attn.in_proj_bias" in shapes,
        )
        config.validate()
        return config
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        said = error.got if isinstance(error, InputError) else "tensors that make none"
        raise InputError("a backbone of SegFormer's Mix Transformer", said, "a SegFormer checkpoint of DDPS") from None


def _blocks(shapes: Mapping[str, torch.Size], stage: int) -> int:
    return len({name.split(".")[3] for name in shapes if name.startswith(f"layers.{stage}.1.")})
