"""Frozen segmentors from folders: transformers' and our own."""

import json
from dataclasses import replace

import pytest
import torch

from ddps import DDPSRefiner
from ddps.config import LabelSpace
from ddps.errors import InputError
from ddps.refiner import build_network
from ddps.training.paper import FrozenSegmentor, Seen, read_segmentor

from .conftest import tiny_recipe

MODEL = tiny_recipe().model


@torch.no_grad()
def test_transformers_encoder_and_head_say_what_they_say_there(segformer_dir):
    from transformers import SegformerForSemanticSegmentation

    segmentor = read_segmentor(segformer_dir, MODEL)
    assert segmentor.has_logits and not segmentor.fusion_weights() and not segmentor.training
    assert not any(p.requires_grad for p in segmentor.parameters())
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    seen = segmentor(image)
    assert [tuple(f.shape) for f in seen.features] == [(2, 4, 16, 24), (2, 8, 8, 12)]
    theirs = SegformerForSemanticSegmentation.from_pretrained(segformer_dir).eval()
    pixels = segmentor.backbone.normalise(image)
    torch.testing.assert_close(seen.logits, theirs(pixels).logits, rtol=1e-3, atol=1e-4)


def test_a_head_of_another_label_space_is_left_out(segformer_dir):
    labels = LabelSpace(4, void_first=True)
    other = replace(MODEL, labels=labels, network=replace(MODEL.network, num_classes=5))
    segmentor = read_segmentor(segformer_dir, other)
    assert not segmentor.has_logits and segmentor(torch.rand(1, 3, 32, 32)).logits is None


def test_our_own_models_bring_their_fusion(tmp_path):
    torch.manual_seed(0)
    saved = DDPSRefiner(MODEL, build_network(MODEL), device="cpu")
    saved.save_pretrained(tmp_path / "whole")
    segmentor = read_segmentor(tmp_path / "whole", MODEL)
    state = saved.network.state_dict()
    fusion = segmentor.fusion_weights()
    assert {name.split(".")[0] for name in fusion} == {"convs", "fusion_conv"}
    assert all(torch.equal(value, state[name]) for name, value in fusion.items())
    own = segmentor.backbone_weights()
    assert all(torch.equal(value, state[f"backbone.{name}"]) for name, value in own.items())
    wider = replace(MODEL, network=replace(MODEL.network, channels=16))
    assert not read_segmentor(tmp_path / "whole", wider).fusion_weights()


def test_what_is_no_segmentor(tmp_path, segformer_dir, tiny_model_dir):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text((segformer_dir / "config.json").read_text())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"not to be opened")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.json").write_text((segformer_dir / "config.json").read_text())
    (tmp_path / "cut" / "model.safetensors").write_bytes((segformer_dir / "model.safetensors").read_bytes()[:500])
    deeper = replace(MODEL, backbone=replace(MODEL.backbone, depths=(2, 1)))
    for folder, model in (
        (tmp_path, MODEL),
        *((tmp_path / name, MODEL) for name in ("broken", "bert", "pickled", "cut")),
        (tiny_model_dir, MODEL),
        (segformer_dir, deeper),
        (segformer_dir, replace(MODEL, backbone=None)),
    ):
        with pytest.raises(InputError) as caught:
            read_segmentor(folder, model)
        assert "\n" not in str(caught.value)


def test_a_segmentor_has_to_say_what_it_sees_and_nothing_else():
    with pytest.raises(TypeError, match="forward"):
        FrozenSegmentor()

    class Plain(FrozenSegmentor):
        def forward(self, image):
            return Seen([image[:, :, ::4, ::4]], None)

    plain = Plain()
    assert not plain.has_logits and plain.backbone_weights() == plain.fusion_weights() == {}
    assert plain(torch.zeros(1, 3, 8, 8)).features[0].shape == (1, 3, 2, 2)
