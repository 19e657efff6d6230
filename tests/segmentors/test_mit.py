"""The Mix Transformer: golden features, published sizes, names on disk."""

import copy
import dataclasses
import sys

import pytest
import torch

from ddps.config import BackboneConfig
from ddps.errors import InputError
from ddps.segmentors import build_backbone
from ddps.segmentors.mit import SIZES, config_of, size_name

from ..whole_models import BACKBONE


def golden_state(shared) -> dict[str, torch.Tensor]:
    state = torch.load(shared / "golden" / "checkpoint_origin.pth", weights_only=True)["state_dict"]
    return {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}


@torch.no_grad()
def test_golden_features(shared, golden):
    state = golden_state(shared)
    backbone = build_backbone(config_of({name: value.shape for name, value in state.items()})).eval()
    backbone.load_state_dict(state)
    found = backbone(golden["image"].repeat(3, 1, 1, 1))
    assert len(found) == 4
    for j, feature in enumerate(found):
        assert feature.shape == (3, *golden[f"feature.{j}"].shape[1:])
        assert (feature - golden[f"feature.{j}"]).abs().max() <= 1e-5
    saved = backbone.state_dict()
    assert saved.keys() == state.keys() and all(torch.equal(saved[name], state[name]) for name in state)


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_are_told_by_their_tensors(name):
    widths, depths = SIZES[name]
    wanted = BackboneConfig(embed_dims=widths, depths=depths)
    with torch.device("meta"):
        state = build_backbone(wanted).state_dict()
    assert all(value.device.type == "meta" for value in state.values())
    found = config_of({key: value.shape for key, value in state.items()})
    assert found == wanted and size_name(found) == name


@pytest.mark.parametrize(
    "change",
    [
        {"qkv_bias": False},
        {"mlp_ratio": 2},
        {"sr_ratios": (4, 2)},
        {"patch_sizes": (3, 3), "strides": (2, 2)},
        {"embed_dims": (8, 24), "num_heads": (1, 3)},
    ],
    ids=lambda change: next(iter(change)),
)
@torch.no_grad()
def test_other_sizes_are_told_by_their_tensors_and_saved(change):
    wanted = dataclasses.replace(BACKBONE, **change)
    torch.manual_seed(0)
    backbone = build_backbone(wanted).eval()
    for parameter in backbone.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    state = backbone.state_dict()
    assert config_of({key: value.shape for key, value in state.items()}) == wanted and size_name(wanted) == "MiT"
    assert (
        any("in_proj_bias" in key for key in state) == any("out_proj.bias" in key for key in state) == wanted.qkv_bias
    )
    other = build_backbone(wanted).eval()
    other.load_state_dict(state)
    image = torch.rand(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(backbone(image), other(image), strict=True))


def test_a_copy_keeps_its_names_and_its_own_weights():
    backbone = build_backbone(BACKBONE)
    copied = copy.deepcopy(backbone)
    copied.load_state_dict({name: torch.zeros_like(value) for name, value in copied.state_dict().items()})
    assert all(not value.any() for value in copied.state_dict().values())
    assert any(value.any() for value in backbone.state_dict().values())


def test_loading_is_strict():
    backbone = build_backbone(BACKBONE)
    state = backbone.state_dict()
    lacking = {name: value for name, value in state.items() if "in_proj_weight" not in name}
    wrong = state | {"layers.0.0.projection.weight": torch.zeros(8, 3, 3, 3)}
    for bad in (lacking, state | {"layers.9.weight": torch.zeros(1)}, wrong):
        with pytest.raises(RuntimeError):
            backbone.load_state_dict(bad)


def test_normalise_is_that_of_the_paper():
    backbone = build_backbone(BACKBONE)
    mean = torch.tensor([123.675, 116.28, 103.53])[None, :, None, None] / 255
    assert backbone.normalise(mean.expand(2, 3, 4, 5)).abs().max() < 1e-5
    white = backbone.normalise(torch.ones(1, 3, 1, 1))[0, :, 0, 0]
    torch.testing.assert_close(white, torch.tensor([131.325 / 58.395, 138.72 / 57.12, 151.47 / 57.375]))


def test_what_is_no_mix_transformer_is_refused():
    good = {name: value.shape for name, value in build_backbone(BACKBONE).state_dict().items()}
    without_ffn = {name: shape for name, shape in good.items() if "ffn" not in name}
    even = good | {"layers.0.0.projection.weight": torch.Size((8, 3, 4, 4))}
    uneven = good | {"layers.1.0.projection.weight": torch.Size((15, 8, 3, 3))}
    flat = good | {"layers.0.0.projection.weight": torch.Size((8,))}
    for shapes in ({}, {"conv1.weight": torch.Size((64, 3, 7, 7))}, without_ffn, even, uneven, flat):
        with pytest.raises(InputError, match="Mix Transformer"):
            config_of(shapes)


def test_without_transformers_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'ddps\[transformers\]'"):
        build_backbone(BACKBONE)


def test_a_transformers_with_other_names_is_refused(monkeypatch):
    monkeypatch.setattr("ddps.segmentors.mit.names_of", lambda depths, present: None)
    with pytest.raises(InputError, match="a version of transformers that ddps knows"):
        build_backbone(BACKBONE)
