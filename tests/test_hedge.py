"""A share of the segmentor's own probabilities in those of the answer changes how sure it is, and no label."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddps import DDPSRefiner
from ddps.config import InferenceConfig, LogitsNetwork
from ddps.large import refine_large
from ddps.outputs import Refinement

from .conftest import TINY, make_tiny_refiner

SIZE = (100, 150)


@pytest.fixture(scope="module")
def refiners() -> dict[float, DDPSRefiner]:
    plain = make_tiny_refiner(replace(TINY, inference=InferenceConfig(steps=2, tile=96, overlap=16, mix=0.75)))
    assert isinstance(plain.config.network, LogitsNetwork)
    hedged = replace(plain.config, inference=replace(plain.config.inference, hedge=0.4))
    return {0: plain, 0.4: DDPSRefiner(hedged, plain.network, device="cpu")}


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def logits(classes: int) -> np.ndarray:
    return (2 * np.random.default_rng(1).standard_normal((classes, 25, 38))).astype(np.float32)


def refine(refiner: DDPSRefiner, prediction: np.ndarray, **options) -> Refinement:
    refined = refiner.refine(image(), prediction, **options)
    assert isinstance(refined, Refinement)
    return refined


@pytest.mark.parametrize("classes", [2, 5, 20])
def test_labels_are_the_same_and_confidence_is_not(refiners, classes):
    plain, hedged = (refine(one, logits(classes), kind="logits", after=(1,)) for one in refiners.values())
    for before, after in ((plain, hedged), (plain.after[1], hedged.after[1])):
        assert np.array_equal(before.labels, after.labels) and np.array_equal(before.changed, after.changed)
        assert np.abs(before.uncertainty - after.uncertainty).max() > 0.01
        assert np.array_equal(after.probs.argmax(0), after.labels)
        assert after.uncertainty.min() >= 0 and after.uncertainty.max() <= 1


def test_a_label_map_has_no_probabilities_to_give_a_share(refiners):
    labels = torch.from_numpy(logits(4)).argmax(0).repeat_interleave(4, 0).repeat_interleave(4, 1)[:100, :150].numpy()
    plain, hedged = (refine(one, labels, kind="labels") for one in refiners.values())
    assert np.array_equal(plain.labels, hedged.labels)
    assert np.array_equal(plain.probs, hedged.probs) and np.array_equal(plain.uncertainty, hedged.uncertainty)


def test_a_large_image_is_hedged_too(refiners, tmp_path):
    np.save(tmp_path / "image.npy", image())
    np.save(tmp_path / "logits.npy", logits(5))
    out, unsure = tmp_path / "labels.npy", tmp_path / "uncertainty.npy"
    refine_large(refiners[0.4], tmp_path / "image.npy", tmp_path / "logits.npy", out, uncertainty=unsure, kind="logits")
    whole = refine(refiners[0.4], logits(5), kind="logits")
    assert np.array_equal(np.load(out), whole.labels)
    assert np.abs(np.load(unsure) / 255 - whole.uncertainty).max() < 0.01
