"""`ddps evaluate` with a full model of the paper: an encoder and the head, no predictions needed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import BackboneConfig, FeaturesNetwork, LabelSpace, ScheduleConfig
from ddps.inputs import load_image
from ddps.metrics import SegmentationMetrics
from ddps.predictions import load_prediction
from ddps.protocol import EvaluationProtocol, Passes, infer
from ddps.protocol_models import as_segmentor, caller
from ddps.refiner import build_network

pytest.importorskip("transformers")

WIDTHS = (8, 8, 16, 16)
CONFIG = DDPSConfig(
    labels=LabelSpace(3, ("sky", "road", "car"), void_first=True),
    schedule=ScheduleConfig(num_steps=20),
    network=FeaturesNetwork(in_channels=WIDTHS, channels=16, embed_dim=4, dim=16, out_dim=16, num_classes=4),
    backbone=BackboneConfig(embed_dims=WIDTHS, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights that do not always answer the same class."""
    torch.manual_seed(0)
    network = build_network(CONFIG)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("unet", "conv_seg_new")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return DDPSRefiner(CONFIG, network, device="cpu").save_pretrained(tmp_path_factory.mktemp("full"))


@pytest.fixture
def evaluate(run, data_set, model):
    def command(*arguments, images=data_set.images):
        folders = ("--images", images, "--masks", data_set.masks)
        return run("evaluate", *folders, "--model", model, "--device", "cpu", *arguments)

    return command


def read_mask(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_an_image_is_all_it_needs(evaluate, data_set, model):
    refiner = DDPSRefiner.from_pretrained(model, device="cpu")
    first, last = SegmentationMetrics(3), SegmentationMetrics(3)
    for path in sorted(data_set.images.iterdir()):
        out = refiner.refine(path, steps=3, after=(1,))
        target = read_mask(data_set.masks / path.name)
        first.update(out.after[1].labels, target)
        last.update(out.labels, target)
    report = evaluate("--steps", "1,3", "--json").json
    assert report["base"] is None and list(report["rows"]) == ["step 1", "refined"]
    assert report["rows"]["step 1"] == pytest.approx(first.as_dict())
    assert report["refined"] == pytest.approx(last.as_dict())
    assert [row["class"] for row in report["per_class"]] == ["sky", "road", "car"]
    text = evaluate("--steps", "3").out
    assert "refined" in text and "base" not in text and "road" in text


def test_predictions_are_a_row_and_something_to_average_with(evaluate, data_set, model):
    options = ("--steps", "2", "--predictions", data_set.predictions, "--average-base", "--json")
    report = evaluate(*options).json
    assert list(report["rows"]) == ["base", "refined", "refined + base"]
    refiner = DDPSRefiner.from_pretrained(model, device="cpu")
    mean = SegmentationMetrics(3)
    for path in sorted(data_set.images.iterdir()):
        base = load_prediction(data_set.predictions / f"{path.stem}.npz", (40, 56)).probs()
        probs = torch.as_tensor(refiner.refine(path, steps=2, raw_labels=True).probs)
        probs[1:] += base
        # Where the network says void it is wrong, whatever the truth.
        labels = probs.argmax(0)
        mean.update(torch.where(labels == 0, 255, labels - 1), read_mask(data_set.masks / path.name))
    assert report["rows"]["refined + base"] == pytest.approx(mean.as_dict(), abs=0.05)
    # The model looks at the image alone: what it says does not depend on the predictions.
    assert report["refined"] == evaluate("--steps", "2", "--json").json["refined"]


def test_windows_scales_and_flips(evaluate):
    plain = evaluate("--steps", "1", "--json").json["refined"]
    for options in (
        ("--mode", "slide", "--crop", "32", "--stride", "24"),
        ("--scales", "0.5,1.0", "--flip"),
        ("--protocol", "ade20k"),
    ):
        report = evaluate("--steps", "1", "--limit", "1", "--json", *options)
        assert report.code == 0 and report.json["refined"] != plain, options


def test_a_picture_of_the_padded_size_needs_no_padding(model):
    """The protocol's padding and the model's own are the same: mean colour, at the bottom and on the right."""
    refiner = DDPSRefiner.from_pretrained(model, device="cpu")
    image = load_image((np.random.default_rng(0).random((40, 56, 3)) * 255).astype(np.uint8))
    passes = Passes((2,))
    answers = [
        infer(as_segmentor(caller(refiner, passes)), image, EvaluationProtocol(multiple=multiple), (40, 56), passes)
        for multiple in (1, 32)
    ]
    torch.testing.assert_close(answers[0]["2"], answers[1]["2"], rtol=0, atol=1e-4)


def test_cityscapes_in_its_layout(run, data_set, tmp_path, model):
    image, mask = tmp_path / "leftImg8bit" / "val" / "ulm", tmp_path / "gtFine" / "val" / "ulm"
    image.mkdir(parents=True)
    mask.mkdir(parents=True)
    (image / "ulm_1_leftImg8bit.png").write_bytes((data_set.images / "a.png").read_bytes())
    (mask / "ulm_1_gtFine_labelTrainIds.png").write_bytes((data_set.masks / "a.png").read_bytes())
    outcome = run("evaluate", "--data", tmp_path, "--model", model, "--device", "cpu")
    assert outcome.is_bad_input() and "3 classes" in outcome.err and "got 19" in outcome.err


def test_a_model_without_an_encoder_is_refused(run, data_set, tmp_path):
    config = json.loads(CONFIG.to_json())
    config["backbone"] = None
    config = DDPSConfig.from_json(json.dumps(config))
    folder = DDPSRefiner(config, build_network(config), device="cpu").save_pretrained(tmp_path / "head")
    options = ("--images", data_set.images, "--masks", data_set.masks, "--model", folder, "--device", "cpu")
    outcome = run("evaluate", *options)
    assert outcome.is_bad_input() and "features" in outcome.err
