"""mmsegmentation's names against both of transformers' layouts, whichever is installed."""

import pytest
import torch

from ddps.segmentors.mmseg_names import VERSION_4, VERSION_5, Layout, from_mmseg, names_of, to_mmseg


def names_in(layout: Layout, depths: tuple[int, ...]) -> set[str]:
    """What transformers would call the tensors of a MiT without reduction in its last stage."""
    found = []
    for stage, depth in enumerate(depths):
        patches = layout.patches.format(stage=stage)
        found += [f"{patches}.proj", f"{patches}.layer_norm", layout.norm.format(stage=stage)]
        for block in range(depth):
            path = layout.block.format(stage=stage, block=block)
            parts = [name for ours, name in layout.parts.items() if stage < 1 or ours not in ("attn.sr", "attn.norm")]
            found += [f"{path}.{name}" for name in (*parts, *layout.query_key_value)]
    return {f"{name}.{kind}" for name in found for kind in ("weight", "bias")}


@pytest.mark.parametrize("layout", [VERSION_4, VERSION_5])
def test_every_tensor_has_one_name(layout):
    present = names_in(layout, (1, 2))
    names = names_of((1, 2), present)
    assert names is not None and {target for targets in names.values() for target in targets} == present
    assert names["layers.0.1.0.attn.attn.in_proj_weight"][1].endswith(("key.weight", "k_proj.weight"))
    assert "layers.0.1.0.attn.sr.weight" in names and "layers.1.1.1.attn.sr.weight" not in names


def test_unknown_layouts_are_not_guessed():
    present = names_in(VERSION_5, (1, 2))
    assert names_of((1, 2), present | {"pooler.weight"}) is None
    assert (
        names_of((1, 2), present - {"stages.0.layer_norm.weight"}) is not None
    )  # a model without it has one name less
    assert names_of((1, 1), present) is None
    assert names_of((1, 2), set()) is None or not names_of((1, 2), set())


def test_query_key_and_value_keep_their_order():
    names = {"layers.0.1.0.attn.attn.in_proj_weight": ("q", "k", "v"), "layers.0.1.0.ffn.layers.0.weight": ("fc",)}
    joint = torch.arange(12.0).reshape(6, 2)
    shapes = dict.fromkeys("qkv", torch.Size((2, 2))) | {"fc": torch.Size((8, 2))}
    ours = {
        "layers.0.1.0.attn.attn.in_proj_weight": joint,
        "layers.0.1.0.ffn.layers.0.weight": torch.rand(8, 2, 1, 1),
    }
    theirs = from_mmseg(names, ours, shapes)
    assert torch.equal(theirs["q"], joint[:2]) and torch.equal(theirs["v"], joint[4:])
    assert theirs["fc"].shape == (8, 2)
    back = to_mmseg(names, theirs)
    assert back.keys() == ours.keys() and all(torch.equal(back[name], ours[name]) for name in ours)
