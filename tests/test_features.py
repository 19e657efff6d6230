"""One call of the paper's models: label spaces, batches, mixing, guidance, several answers of one chain."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ddps import DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace
from ddps.diffusion.samplers import Step
from ddps.errors import InputError

from .whole_models import TINY_WHOLE, whole_refiner, with_void


@pytest.fixture(scope="module")
def refiner() -> DDPSRefiner:
    return whole_refiner()


@pytest.fixture(scope="module")
def voided() -> DDPSRefiner:
    """The same weights, with class 0 void."""
    return whole_refiner(with_void())


def image_of(height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def features_of(batch: int = 1, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in ((batch, 8, 10, 14), (batch, 16, 5, 7))]


# Label spaces


def test_the_answer_is_in_the_users_label_space(refiner, voided):
    plain, users = (r.refine(image_of(), return_trajectory=True) for r in (refiner, voided))
    raw = voided.refine(image_of(), raw_labels=True, return_trajectory=True)
    # The network's own answer does not depend on what its classes are called.
    assert torch.equal(raw.labels, plain.labels) and torch.equal(raw.probs, plain.probs)
    assert raw.labels.unique().tolist() == [0, 1, 2, 3, 4], "the test needs void and several classes in the answer"
    for class_ in range(5):
        there = plain.labels == class_
        assert torch.equal(users.labels == (255 if class_ == 0 else class_ - 1), there)
    assert users.probs.shape[0] == 4 and raw.probs.shape[0] == 5
    torch.testing.assert_close(users.probs, plain.probs[1:] / plain.probs[1:].sum(0))
    known = users.labels != 255
    assert torch.equal(users.labels[known], users.probs.argmax(0)[known])
    assert torch.equal(users.uncertainty, plain.uncertainty)
    for a, b in zip(users.trajectory, plain.trajectory, strict=True):
        assert torch.equal(a, torch.where(b == 0, 255, b - 1))


def test_names_and_colours_follow_the_label_space():
    labels = LabelSpace(4, tuple("abcd"), ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)), void_first=True)
    refiner = whole_refiner(replace(TINY_WHOLE, labels=labels))
    users, raw = (refiner.refine(image_of(), raw_labels=raw) for raw in (False, True))
    assert (users.names, raw.names) == (tuple("abcd"), ("void", *"abcd"))
    assert users.palette == labels.palette and raw.palette == ((0, 0, 0), *labels.palette)
    unnamed = whole_refiner(with_void())
    assert (
        len(unnamed.refine(image_of()).palette) == 4 and len(unnamed.refine(image_of(), raw_labels=True).palette) == 5
    )


def test_void_has_the_label_that_was_asked_for(voided):
    users, minus = (voided.refine(image_of(), ignore_index=index).labels for index in (255, -1))
    assert torch.equal(minus == -1, users == 255) and bool((minus == -1).any())
    with pytest.raises(InputError, match="an ignore_index that is no class"):
        voided.refine(image_of(), ignore_index=3)


def test_a_mask_with_void_is_saved_and_read_again(voided, tmp_path):
    out = voided.refine(image_of())
    out.save(tmp_path / "mask.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")), out.labels.numpy())


# With the segmentor's own prediction


@pytest.mark.parametrize("raw_labels", [False, True])
def test_predictions_are_in_the_answers_label_space(raw_labels):
    config = replace(with_void(), inference=InferenceConfig(steps=2, mix=0.0, label_mix=0.0))
    refiner = whole_refiner(config)
    classes = 5 if raw_labels else 4
    logits = 9 * torch.randn(classes, 20, 28, generator=torch.Generator().manual_seed(5))
    out = refiner.refine(image_of(), logits, raw_labels=raw_labels)
    # A refiner without a say gives the prediction back, class by class.
    shown = F.interpolate(logits[None], (40, 56), mode="bilinear")[0]
    assert torch.equal(out.labels, shown.argmax(0)) and not out.changed.any()
    torch.testing.assert_close(out.probs, shown.softmax(0), rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=f"a prediction over {classes} classes"):
        refiner.refine(image_of(), torch.randn(9 - classes, 20, 28), raw_labels=raw_labels)


def test_mixing_in_the_users_space_lets_nobody_vote_for_void(voided):
    half = whole_refiner(replace(with_void(), inference=InferenceConfig(steps=3, mix=0.5)))
    unsure = torch.full((4, 40, 56), 0.25)
    alone, mixed = voided.refine(image_of()), half.refine(image_of(), unsure)
    assert (mixed.labels == 255).sum() < (alone.labels == 255).sum()


def test_void_of_a_label_map_stays_void(voided):
    labels = torch.randint(0, 4, (40, 56), generator=torch.Generator().manual_seed(0))
    labels[:10] = 255
    out = voided.refine(image_of(), labels)
    assert (out.labels[:10] == 255).all() and not out.changed[:10].any() and out.changed[10:].any()


# Batches


def test_what_shares_a_batch_changes_nothing(refiner):
    images = [image_of(40, 56, 0), image_of(33, 20, 1), image_of(40, 56, 0)]
    together = refiner.refine(images)
    assert isinstance(together, list) and [tuple(out.labels.shape) for out in together] == [
        (40, 56),
        (33, 20),
        (40, 56),
    ]
    for image, out in zip(images, together, strict=True):
        assert torch.equal(out.probs, refiner.refine(image).probs)
    assert torch.equal(together[0].probs, together[2].probs)
    stacked = refiner.refine(torch.stack([images[0], images[2]]))
    assert torch.equal(stacked[1].probs, together[0].probs)


def test_features_of_a_batch(refiner):
    images = torch.stack([image_of(seed=s) for s in range(3)])
    maps = features_of(3)
    together = refiner.refine(images, features=maps)
    apart = [refiner.refine(images[b], features=[f[b : b + 1] for f in maps]) for b in range(3)]
    listed = refiner.refine(list(images), features=[[f[b : b + 1] for f in maps] for b in range(3)])
    for one, other, third in zip(together, apart, listed, strict=True):
        assert torch.equal(one.probs, other.probs) and torch.equal(one.probs, third.probs)
    known = refiner.refine(images, torch.randn(3, 5, 10, 14), features=maps)
    assert all(out.changed.any() for out in known)
    for bad in ({"features": features_of(2)}, {"features": maps, "prediction": torch.randn(2, 5, 10, 14)}):
        with pytest.raises(InputError):
            refiner.refine(images, **bad)


def test_features_in_place_of_the_encoder(refiner):
    own = refiner.refine(image_of())
    with torch.no_grad():
        features = refiner.network.encode(image_of()[None])[0]
    assert torch.equal(refiner.refine(image_of(), features=features).probs, own.probs)
    assert not torch.equal(refiner.refine(image_of(), features=features_of()).probs, own.probs)


@pytest.mark.parametrize("channels", [(8,), (3, 5), (4, 8, 6, 2, 10)])
def test_any_list_of_channels(channels):
    network = replace(TINY_WHOLE.network, in_channels=channels)
    refiner = whole_refiner(replace(TINY_WHOLE, network=network, backbone=None))
    features = [torch.randn(1, width, max(1, 10 >> j), max(1, 14 >> j)) for j, width in enumerate(channels)]
    assert refiner.refine(image_of(), features=features).labels.shape == (40, 56)
    with pytest.raises(InputError, match="which these weights need"):
        refiner.refine(image_of())


def test_containers_follow_the_input(refiner):
    picture = Image.fromarray((image_of() * 255).byte().permute(1, 2, 0).numpy())
    assert isinstance(refiner.refine(picture).labels, np.ndarray)
    assert isinstance(refiner.refine(np.array(picture)).probs, np.ndarray)
    assert isinstance(refiner.refine(image_of()).labels, Tensor)
    assert isinstance(refiner.refine(picture, features=features_of()).labels, Tensor)
    assert isinstance(refiner.refine(picture, np.zeros((5, 4, 4), np.float32) - 1).labels, np.ndarray)


# The chain


def test_guidance_is_the_papers_formula(refiner):
    calls: list[Step] = []
    refiner.refine(image_of(), guidance_scale=1.5, steps=2, callback=calls.append)
    with torch.no_grad():
        condition = refiner.network.condition(refiner.network.encode(image_of()[None])[0])
        for step in calls:
            with_, without = (refiner.network(step.mask, step.i, c) for c in (condition, torch.zeros_like(condition)))
            torch.testing.assert_close(step.logits, 2.5 * with_ - 1.5 * without, rtol=1e-4, atol=1e-4)


def test_several_samples_are_averaged(refiner):
    calls: list[Step] = []
    out = refiner.refine(image_of(), num_samples=3, steps=2, callback=calls.append)
    last = [F.interpolate(step.logits, (40, 56), mode="bilinear")[0].softmax(0) for step in calls[1::2]]
    assert len(last) == 3 and not torch.equal(last[0], last[1])
    torch.testing.assert_close(out.probs, sum(last) / 3)
    assert torch.equal(refiner.refine(image_of(), steps=2).probs, refiner.refine(image_of(), steps=2).probs)


def test_answers_after_some_of_the_steps(voided):
    out = voided.refine(image_of(), steps=6, after=(1, 4), return_trajectory=True)
    assert list(out.after) == [1, 4]
    assert torch.equal(out.after[1].labels, out.trajectory[0]) and torch.equal(out.after[4].labels, out.trajectory[3])
    assert out.after[4].probs.shape == (4, 40, 56) and torch.equal(out.labels, out.trajectory[5])


def test_large_answers_come_in_windows(voided, monkeypatch):
    whole = voided.refine(image_of())
    monkeypatch.setattr("ddps.features.WINDOW_VALUES", 5 * 56 * 7)
    out = voided.refine(image_of())
    assert torch.equal(out.labels, whole.labels) and torch.equal(out.probs, whole.probs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(refiner, dtype):
    reduced = DDPSRefiner(refiner.config, whole_refiner().network, device="cpu", dtype=dtype)
    a, b = (r.refine(image_of(), sampler="single").probs for r in (refiner, reduced))
    assert b.dtype == torch.float32 and 0 < (a - b).abs().mean() < 0.05


def test_new_weights_are_used_by_the_next_call():
    refiner, other = whole_refiner(), whole_refiner(seed=3)
    before = refiner.refine(image_of())
    refiner.network.load_state_dict(other.network.state_dict())
    after = refiner.refine(image_of())
    assert not torch.equal(after.probs, before.probs)
    assert torch.equal(after.probs, other.refine(image_of()).probs)
