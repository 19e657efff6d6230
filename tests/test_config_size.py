"""The size of a network told from its config, held against the network itself."""

import importlib.util
import json
from dataclasses import replace

import pytest

from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, LogitsNetwork
from ddps.config_size import MAX_WEIGHTS, backbone_weights, head_weights
from ddps.errors import InputError
from ddps.hub import expected_tensors
from ddps.refiner import build_network

HEADS = [
    FeaturesNetwork(),
    FeaturesNetwork(dim=64, dim_mults=(1, 2, 4, 8)),
    FeaturesNetwork(channels=2048, embed_dim=512, dim=32, dim_mults=(1,)),
    FeaturesNetwork(in_channels=(16384,) * 8, channels=512, dim=64),
    FeaturesNetwork(num_classes=65536, embed_dim=512, out_dim=512, dim=64),
    FeaturesNetwork(dim=512, dim_mults=(1,) * 8),
]
BACKBONES = [
    BackboneConfig(),
    BackboneConfig(depths=(3, 6, 40, 3)),
    BackboneConfig(sr_ratios=(1, 1, 1, 1), mlp_ratio=8),
    BackboneConfig(embed_dims=(256,), depths=(2,), num_heads=(1,), sr_ratios=(16,), patch_sizes=(63,), strides=(4,)),
]


def built(config: DDPSConfig, prefix: str = "") -> int:
    """Weights of the network, built without memory."""
    tensors = expected_tensors(build_network, config)
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(prefix))


@pytest.mark.parametrize("head", HEADS)
def test_heads(head):
    found = built(DDPSConfig(network=head))
    assert 0.95 * found < head_weights(head) <= found


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers runs the encoder")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_encoders(backbone):
    head = FeaturesNetwork(in_channels=backbone.embed_dims, dim=64)
    found = built(DDPSConfig(network=head, backbone=backbone), "backbone.")
    assert 0.95 * found < backbone_weights(backbone) <= found


def test_the_widest_network_on_logits_is_below_the_bound():
    widest = LogitsNetwork(image_widths=(1024,) * 6, slot_widths=(1024,) * 6, max_slots=64)
    assert built(DDPSConfig(network=widest)) < MAX_WEIGHTS


def test_a_network_above_the_bound_is_refused():
    largest = replace(FeaturesNetwork(), dim=896, dim_mults=(1, 2, 2))
    DDPSConfig(network=largest)
    with pytest.raises(InputError, match=r"up to 1,000,000,000 weights; got 1,\d{3},\d{3},\d{3}"):
        DDPSConfig(network=replace(largest, dim=960))


def test_the_encoder_counts():
    wide = BackboneConfig(
        embed_dims=(2048,) * 2, depths=(20, 1), num_heads=(1, 1), sr_ratios=(1, 1), patch_sizes=(3, 3), strides=(4, 2)
    )
    with pytest.raises(InputError, match="up to 1,000,000,000 weights"):
        DDPSConfig(network=FeaturesNetwork(in_channels=wide.embed_dims), backbone=wide)
    with pytest.raises(InputError, match=r"up to 128 blocks; got 131"):
        DDPSConfig(network=FeaturesNetwork(), backbone=BackboneConfig(depths=(3, 3, 122, 3)))


@pytest.mark.parametrize("key", ["name", "network"])
def test_a_key_that_is_there_twice(key):
    text = DDPSConfig().to_json()
    twice = text.replace(f'  "{key}"', f'  "{key}": {json.dumps(json.loads(text)[key])},\n  "{key}"', 1)
    assert json.loads(twice) == json.loads(text)
    with pytest.raises(InputError, match=f"'{key}' twice"):
        DDPSConfig.from_json(twice)
