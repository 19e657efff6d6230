"""Refiners under the protocol, tiny and with random weights."""

from dataclasses import replace

import pytest
import torch

from ddps.config import InferenceConfig
from ddps.predictions import load_prediction
from ddps.protocol import EvaluationProtocol, Passes, infer
from ddps.protocol_models import as_segmentor, caller

from .conftest import TINY, make_tiny_refiner

SIZE = (40, 56)


@pytest.fixture(scope="module")
def refiner():
    return make_tiny_refiner(replace(TINY, inference=InferenceConfig(steps=2, tile=128, overlap=16, mix=0.7)))


@pytest.fixture
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits():
    return 2 * torch.randn(3, 10, 14, generator=torch.Generator().manual_seed(1))


def test_a_whole_image_is_what_refine_gives(refiner, image, logits):
    known = load_prediction(logits, SIZE, "logits")
    probs = infer(as_segmentor(caller(refiner, Passes())), image, EvaluationProtocol(), SIZE, prediction=known)["1"]
    torch.testing.assert_close(probs, refiner.refine(image, logits).probs)


@pytest.mark.parametrize(
    "protocol", [EvaluationProtocol(), EvaluationProtocol(mode="slide", crop=(64, 64), stride=(9, 9))]
)
def test_a_foreground_and_a_label_map_keep_their_meaning(refiner, image, logits, protocol):
    labels = logits.argmax(0)
    labels[:3] = 255
    for prediction in (logits[:1], labels):
        known = load_prediction(prediction, SIZE, "labels" if prediction is labels else "logits")
        probs = infer(as_segmentor(caller(refiner, Passes())), image, protocol, SIZE, prediction=known)["1"]
        kind = "labels" if prediction is labels else "logits"
        torch.testing.assert_close(probs, refiner.refine(image, prediction, kind=kind).probs)


def test_passes_of_one_chain(refiner, image, logits):
    known = load_prediction(logits, SIZE, "logits")
    passes = Passes((1, 4), average=True)
    answers = infer(as_segmentor(caller(refiner, passes)), image, EvaluationProtocol(), SIZE, passes, known)
    out = refiner.refine(image, logits, steps=4, after=(1, 2, 3))
    torch.testing.assert_close(answers["1"], out.after[1].probs)
    torch.testing.assert_close(answers["4"], out.probs)
    expected = (out.after[1].probs + out.after[2].probs + out.after[3].probs + out.probs) / 4
    torch.testing.assert_close(answers["average"], expected)


def test_windows_scales_and_mirrors_go_together_with_the_prediction(refiner, image):
    """Where the segmentor is sure of every pixel there is nothing to refine: its answer comes back from everywhere."""
    logits = torch.full((2, *SIZE), -20.0)
    logits[0, :, :20], logits[1, :, 20:] = 20.0, 20.0
    known = load_prediction(logits, SIZE, "logits")
    protocol = EvaluationProtocol(mode="slide", crop=(32, 32), stride=(16, 16), scales=(1.0, 2.0), flip=True)
    probs = infer(as_segmentor(caller(refiner, Passes())), image, protocol, SIZE, prediction=known)["1"]
    assert torch.equal(probs.argmax(0), logits.argmax(0))
