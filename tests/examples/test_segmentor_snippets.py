"""Every snippet of docs/segmentors.md runs as it stands, with tiny models in place of downloaded weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSRefiner

from ..adapters.segmentors import tiny_sam

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "segmentors.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)


def snippet(having: str) -> str:
    (found,) = [text for text in SNIPPETS if having in text]
    return found


@pytest.fixture
def names(monkeypatch, tmp_path, tiny_refiner):
    """What the document says that all snippets know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DDPSRefiner, "from_pretrained", classmethod(lambda cls: tiny_refiner))
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save("photo.jpg")
    return {"torch": torch, "refiner": tiny_refiner, "image": image, "images": [image, image.rotate(90, expand=True)]}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="the snippet imports it")


def segformer(transformers):
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=3, **sizes)).eval()
    return model, transformers.SegformerImageProcessor(size={"height": 64, "width": 64})


def test_all_are_run():
    assert len(SNIPPETS) == 8


def test_five_lines(names, transformers):
    text = snippet("from transformers import pipeline")
    assert sum(map(bool, text.splitlines())) == 5
    (folder,) = re.findall(r'"(nvidia/.*?)"', text)  # a folder goes before a name of the Hub
    for part in segformer(transformers):
        part.save_pretrained(folder)
    exec(text, {})
    assert np.array(Image.open("mask.png")).shape == (60, 90)


def test_dense(names, transformers):
    names["model"], names["processor"] = segformer(transformers)
    exec(snippet("better = refiner.refine(image, outputs)"), names)
    assert names["better"].labels.shape == (60, 90)


def test_queries(names, transformers):
    grid = {"image_size": 64, "patch_size": 16, "num_blocks": 1, "num_upscale_blocks": 2, "num_queries": 7}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    names["model"] = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(num_labels=3, **grid, **sizes))
    sides = {"shortest_edge": 64, "longest_edge": None}
    names["processor"] = transformers.EomtImageProcessor(size=sides, do_split_image=True)
    exec(snippet("to_logits(outputs, inputs, images)"), names)
    assert [tuple(one.labels.shape) for one in names["answers"]] == [(60, 90), (90, 60)]


def test_torchvision(names):
    models = pytest.importorskip("torchvision.models.segmentation", reason="the snippet imports it")

    def random(weights):
        return models.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)

    weights = models.DeepLabV3_ResNet50_Weights
    exec(snippet("weights.transforms"), {**names, "DeepLabV3_ResNet50_Weights": weights, "deeplabv3_resnet50": random})


def test_smp(names):
    smp = pytest.importorskip("segmentation_models_pytorch", reason="the snippet is about it")
    names["model"] = smp.Unet("mobilenet_v2", encoder_weights=None, classes=1).eval()
    names["pixels"] = torch.rand(1, 3, 64, 96)
    exec(snippet("sigmoid foreground"), names)
    assert names["better"].probs.shape == (2, 60, 90)


def test_mmseg(names, monkeypatch):
    apis = pytest.importorskip("mmseg.apis", reason="the snippet imports it")
    from mmengine import Config

    steps = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (64, 64)}, {"type": "PackSegInputs"}]
    sizes = {"embed_dims": 8, "num_layers": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    places = {"in_channels": [8, 8, 16, 16], "in_index": [0, 1, 2, 3], "channels": 8, "num_classes": 4}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "bgr_to_rgb": True},
        "backbone": {"type": "MixVisionTransformer", **sizes},
        "decode_head": {"type": "SegformerHead", "norm_cfg": {"type": "BN"}, **places},
        "test_cfg": {"mode": "whole"},
    }
    config = {"model": model, "test_pipeline": steps, "test_dataloader": {"dataset": {"pipeline": steps}}}
    Config(config).dump("config.py")
    torch.save({"state_dict": apis.init_model("config.py", device="cpu").state_dict(), "meta": {}}, "weights.pth")
    exec(snippet("from mmseg.apis import"), names)
    assert names["better"].probs.shape == (4, 60, 90)


def test_sam(names, transformers):
    names["model"] = tiny_sam(transformers)
    names["processor"] = transformers.SamProcessor(transformers.SamImageProcessor())
    exec(snippet("refine_masks(refiner, image, outputs)"), names)
    assert names["stack"].masks.shape == (2, 60, 90)


def test_anything_else(names):
    exec(snippet("numpy or torch"), {**names, "logits": np.random.default_rng(0).normal(size=(4, 7, 9))})
