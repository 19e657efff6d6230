"""Synthetic mistakes: always distributions, a function of the generator alone, and real but moderate mistakes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddps.training import corruption
from ddps.training.corruption import corrupt, vary_confidence


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks(slots: int = 3, height: int = 48, width: int = 64) -> Tensor:
    """One-hot rectangles."""
    coarse = torch.randint(slots, (1, 1, 3, 4), generator=seeded(slots)).float()
    labels = F.interpolate(coarse, (height, width), mode="nearest")[0, 0].long()
    return F.one_hot(labels, slots).permute(2, 0, 1).float()


def assert_distribution(probs: Tensor, like: Tensor) -> None:
    assert probs.shape == like.shape and probs.dtype == torch.float32
    assert probs.isfinite().all() and (probs >= 0).all()
    torch.testing.assert_close(probs.sum(0), torch.ones(like.shape[1:]), rtol=0, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**40), slots=st.integers(1, 9), height=st.sampled_from([1, 5, 32, 63]), width=st.just(48))
def test_mistakes_leave_distributions(seed, slots, height, width):
    truth = blocks(slots, height, width)
    before = truth.clone()
    generator = seeded(seed)
    probs = corrupt(truth, generator)
    assert_distribution(probs, truth)
    assert_distribution(vary_confidence(probs, generator), truth)
    assert torch.equal(truth, before)


def test_void_may_hold_any_distribution():
    truth = blocks(4)
    truth[:, :10] = 0.25
    for seed in range(20):
        assert_distribution(corrupt(truth, seeded(seed)), truth)


def test_the_generator_decides_and_nothing_else():
    state = torch.get_rng_state()
    truth = blocks()
    a, b, c = (corrupt(truth, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_most_of_the_truth_survives_but_not_all():
    truth = blocks()
    wrong = [float((corrupt(truth, seeded(s)).argmax(0) != truth.argmax(0)).float().mean()) for s in range(60)]
    assert 0.01 < sum(wrong) / len(wrong) < 0.3 and max(wrong) < 0.9


def test_displacement_moves_outlines_only_a_little():
    truth = blocks()
    torch.testing.assert_close(corruption.displace(truth, 0.0, 10, seeded()), truth, rtol=0, atol=1e-4)
    moved = corruption.displace(truth, 2.0, 10, seeded()).argmax(0) != truth.argmax(0)
    near = F.max_pool2d(truth, 17, 1, 8).sum(0) > 1
    assert moved.any() and not moved[~near].any()


@pytest.mark.parametrize("stride", [2, 4, 16, 100])
def test_low_resolution_keeps_what_is_flat(stride):
    flat = torch.tensor([0.2, 0.8])[:, None, None].expand(2, 48, 64)
    torch.testing.assert_close(corruption.low_resolution(flat, stride), flat)


def test_growing_prefers_some_classes():
    truth = blocks(2)
    shares = [corruption.grow(truth, 4, 1.0, seeded(seed)).mean((1, 2))[0] for seed in range(8)]
    assert min(shares) < truth[0].mean() < max(shares)


def test_blobs_take_about_their_share():
    truth = blocks(3)
    changed = [
        float(((corruption.swap_blobs(truth, 12, 0.1, seeded(s)) - truth).abs().amax(0) > 0.3).float().mean())
        for s in range(20)
    ]
    assert 0.01 < sum(changed) / 20 < 0.2


def test_confidence():
    probs = torch.tensor([0.6, 0.3, 0.1])[:, None, None].expand(3, 4, 4)
    hard = corruption.hard_labels(probs, 0.9)
    torch.testing.assert_close(hard[:, 0, 0], torch.tensor([0.9, 0.05, 0.05]))
    torch.testing.assert_close(corruption.temperature(probs, 1.0), probs)
    assert corruption.temperature(probs, 0.5)[0, 0, 0] > 0.7 and corruption.temperature(probs, 2.0)[0, 0, 0] < 0.5


def test_smooth_noise_is_of_unit_variance_and_smooth():
    noise = corruption.smooth_noise(2, (200, 200), 20, seeded())
    assert noise.shape == (2, 200, 200) and 0.5 < float(noise.std()) < 1.5
    assert float(noise.diff(dim=-1).abs().mean()) < 0.15


def test_chance_and_uniform():
    generator = seeded()
    assert not any(corruption.chance(0, generator) for _ in range(50))
    assert all(corruption.chance(1, generator) for _ in range(50))
    drawn = [corruption.uniform(2, 5, generator) for _ in range(200)]
    assert min(drawn) >= 2 and max(drawn) < 5 and max(drawn) - min(drawn) > 2


def test_distance_to_an_outline_is_counted_in_pixels():
    labels = torch.zeros(9, 20, dtype=torch.int64)
    labels[:, 10:] = 4
    row = corruption.outline_distance(labels, 5)[4]
    assert row[5:15].tolist() == [4, 3, 2, 1, 0, 0, 1, 2, 3, 4] and float(row.max()) == 5


def test_mending_repairs_mistakes_deep_inside_and_keeps_confidence():
    truth = F.one_hot((torch.arange(96) >= 48).long().expand(96, 96), 2).permute(2, 0, 1).float()
    labels = truth.argmax(0)
    labels[:10] = 255
    probs = truth * 0.6 + 0.2
    probs[:, :, 60:80] = probs[:, :, 60:80].flip(0)
    probs[:, :, 46:50] = probs[:, :, 46:50].flip(0)
    mended = [corruption.repair(probs, labels, 255, seeded(seed)) for seed in range(30)]
    wrong = [(one.argmax(0) != labels) & (labels != 255) for one in mended]
    deep = torch.tensor([float(one[:, 62:78].float().sum()) for one in wrong])
    all_of_them = float((labels != 255)[:, 62:78].sum())
    assert float(deep.min()) < 0.1 * all_of_them and float(deep.max()) > 0.5 * all_of_them
    # beside the outline most mistakes stay, void is left alone, what was right stays right
    kept = torch.stack([one[10:, 47:49].float().mean() for one in wrong])
    assert float(kept.mean()) > 0.7 and float(deep.mean()) < 0.6 * all_of_them
    assert all(torch.equal(one[:, :10], probs[:, :10]) for one in mended)
    assert all(torch.equal(one[:, :, :46], probs[:, :, :46]) for one in mended)
    for one in mended:
        torch.testing.assert_close(one.sort(0).values, probs.sort(0).values)


def test_a_label_map_softened_keeps_its_labels_and_doubts_its_mistakes():
    labels = (torch.arange(96) >= 48).long().expand(96, 96).clone()
    labels[:8] = 255
    guess = labels.clamp(max=1).clone()
    guess[30:60, 60:90] = 2
    probs = 0.8 * F.one_hot(guess, 3).permute(2, 0, 1).float() + 0.2 / 3
    inside = torch.zeros(96, 96, dtype=torch.bool)
    inside[36:54, 66:84] = True
    sure = torch.zeros(96, 96, dtype=torch.bool)
    sure[70:90, 60:90] = True
    doubts = []
    for seed in range(30):
        soft = corruption.soften(probs, labels, 255, seeded(seed))
        torch.testing.assert_close(soft.sum(0), torch.ones(96, 96))
        assert soft.min() >= 0 and (soft.argmax(0) == guess)[inside | sure].float().mean() > 0.9
        assert (soft.argmax(0) == guess).float().mean() > 0.85
        doubts.append([float(1 - soft.amax(0)[where].mean()) for where in (inside, sure)])
    wrong, right = torch.tensor(doubts).mean(0)
    assert wrong > 1.3 * right
    # outlines are unsure, and what is drawn differs from crop to crop
    soft = [corruption.soften(probs, labels, 255, seeded(seed)) for seed in range(20)]
    assert torch.stack([s.amax(0)[70:90, 46:50].mean() - s.amax(0)[70:90, 60:90].mean() for s in soft]).mean() < -0.05
    assert not torch.equal(soft[0], soft[1])
    assert torch.equal(soft[0], corruption.soften(probs, labels, 255, seeded(0)))
