"""mmsegmentation's parameter names of the Mix Transformer, and what transformers calls the same tensors.

The released checkpoints, and so our files, carry mmsegmentation's names (Apache-2.0), whichever version of transformers
runs the model: transformers renamed its own between versions 4 and 5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where a version of transformers keeps what mmsegmentation calls `layers.STAGE.PART...`.

    Args:
        patches: path of a stage's patch embedding.
        norm: path of a stage's last normalisation.
        block: path of a stage's block.
        parts: mmsegmentation's name within a block → the name here.
        query_key_value: the three that mmsegmentation keeps in one tensor.
    """

    patches: str
    norm: str
    block: str
    parts: Mapping[str, str]
    query_key_value: tuple[str, str, str]


VERSION_4 = Layout(
    patches="encoder.patch_embeddings.{stage}",
    norm="encoder.layer_norm.{stage}",
    block="encoder.block.{stage}.{block}",
    parts={
        "norm1": "layer_norm_1",
        "attn.attn.out_proj": "attention.output.dense",
        "attn.sr": "attention.self.sr",
        "attn.norm": "attention.self.layer_norm",
        "norm2": "layer_norm_2",
        "ffn.layers.0": "mlp.dense1",
        "ffn.layers.1": "mlp.dwconv.dwconv",
        "ffn.layers.4": "mlp.dense2",
    },
    query_key_value=("attention.self.query", "attention.self.key", "attention.self.value"),
)
VERSION_5 = Layout(
    patches="stages.{stage}.patch_embeddings",
    norm="stages.{stage}.layer_norm",
    block="stages.{stage}.blocks.{block}",
    parts={
        "norm1": "layernorm_before",
        "attn.attn.out_proj": "attention.o_proj",
        "attn.sr": "attention.sequence_reduction.sequence_reduction",
        "attn.norm": "attention.sequence_reduction.layer_norm",
        "norm2": "layernorm_after",
        "ffn.layers.0": "mlp.fc1",
        "ffn.layers.1": "mlp.dwconv.dwconv",
        "ffn.layers.4": "mlp.fc2",
    },
    query_key_value=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
)

# mmsegmentation writes these linear layers as 1x1 convolutions.
_POINTWISE = ("ffn.layers.0.weight", "ffn.layers.4.weight")

Names = dict[str, tuple[str, ...]]


def names_of(depths: Iterable[int], present: set[str]) -> Names | None:
    """mmsegmentation's name → the name, or the three names, of the same tensor in transformers.

    Args:
        depths: blocks per stage.
        present: names of the transformers model.

    Returns:
        The names, in mmsegmentation's order, which cover `present` exactly; None for a layout that is not known.
    """
    depths = tuple(depths)
    for layout in (VERSION_5, VERSION_4):
        names = _names(layout, depths, present)
        covered = [name for targets in names.values() for name in targets]
        if len(covered) == len(present) and set(covered) == present:
            return names
    return None


def from_mmseg(names: Names, values: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """mmsegmentation's tensors under transformers' names; what is missing is left out.

    Args:
        names: of `names_of`.
        values: mmsegmentation's name → tensor.
        shapes: transformers' name → shape.
    """
    found: dict[str, Tensor] = {}
    for name, targets in names.items():
        if name in values:
            parts = values[name].chunk(len(targets)) if len(targets) > 1 else (values[name],)
            for target, part in zip(targets, parts, strict=True):
                # A shape that does not fit stays as it is, for load_state_dict to name.
                found[target] = part.reshape(shapes[target]) if part.numel() == shapes[target].numel() else part
    return found


def to_mmseg(names: Names, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under mmsegmentation's names; query, key and value are joined in a copy."""
    found = {}
    for name, targets in names.items():
        value = torch.cat([values[target] for target in targets]) if len(targets) > 1 else values[targets[0]]
        found[name] = value[:, :, None, None] if name.endswith(_POINTWISE) else value
    return found


def _names(layout: Layout, depths: tuple[int, ...], present: set[str]) -> Names:
    names: Names = {}

    def add(ours: str, *theirs: str) -> None:
        for kind in ("weight", "bias"):
            targets = tuple(f"{name}.{kind}" for name in theirs)
            # MultiheadAttention's joined projection is a parameter of its own, hence the underscore.
            joint = f"{ours}_{kind}" if len(theirs) > 1 else f"{ours}.{kind}"
            if all(target in present for target in targets):
                names[joint] = targets

    for stage, depth in enumerate(depths):
        patches = layout.patches.format(stage=stage)
        add(f"layers.{stage}.0.projection", f"{patches}.proj")
        add(f"layers.{stage}.0.norm", f"{patches}.layer_norm")
        for block in range(depth):
            path = layout.block.format(stage=stage, block=block)
            ours = f"layers.{stage}.1.{block}"
            add(f"{ours}.attn.attn.in_proj", *(f"{path}.{name}" for name in layout.query_key_value))
            for part, name in layout.parts.items():
                add(f"{ours}.{part}", f"{path}.{name}")
        add(f"layers.{stage}.2", layout.norm.format(stage=stage))
    return names
