"""The released code's posterior: what each of its mistakes does, and that without them it is Bayes' rule."""

import itertools

import pytest
import torch
from torch import Tensor

from ddps.diffusion import AbsorbingKernel, UniformKernel, make_schedule, posterior, posterior_as_released
from ddps.diffusion.as_released import weights_as_released
from ddps.errors import InputError

K = 5
SCHEDULE = make_schedule("linear", 20)
KERNEL = UniformKernel(K)
NONE = {"vector_denominator": False, "one_level_low": False, "one_step_rates": False}


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def some(height: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(K, (2, height, 7), generator=generator)
    return mask, torch.randn(2, K, height, 7, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def released(n: int, s: int, **mistakes: bool) -> Tensor:
    weights = weights_as_released(KERNEL, *some(), n, s, SCHEDULE, **{**NONE, **mistakes})
    return weights / weights.sum(1, keepdim=True)


def right(n: int, s: int) -> Tensor:
    return KERNEL.posterior(*some(), n, s, SCHEDULE)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().sum(1).mean() / 2)


@pytest.mark.parametrize(("n", "s"), [(19, 18), (19, 5), (10, 0), (1, 0)])
def test_without_mistakes_it_is_the_posterior(n, s):
    torch.testing.assert_close(weights_as_released(KERNEL, *some(), n, s, SCHEDULE, **NONE), right(n, s))


@pytest.mark.parametrize(("n", "s"), [(19, 18), (19, 9), (12, 11), (10, 3)])
def test_as_released_it_is_another_distribution(n, s):
    weights = weights_as_released(KERNEL, *some(), n, s, SCHEDULE)
    assert (weights >= 0).all() and weights.isfinite().all() and (weights.sum(1) > 0).all()
    assert distance(weights / weights.sum(1, keepdim=True), right(n, s)) > 0.05


def test_each_mistake_alone_changes_a_strided_step():
    for mistake in NONE:
        assert distance(released(14, 8, **{mistake: True}), right(14, 8)) > 0.01, mistake


def test_one_step_rates_are_right_for_single_steps_only():
    assert distance(released(12, 11, one_step_rates=True), right(12, 11)) < 1e-9
    gaps = [distance(released(14, s, one_step_rates=True), right(14, s)) for s in (12, 8, 2)]
    assert gaps == sorted(gaps) and gaps[0] > 0.01


def test_one_level_low_is_the_posterior_of_the_step_before():
    torch.testing.assert_close(
        weights_as_released(KERNEL, *some(), 12, 9, SCHEDULE, **{**NONE, "one_level_low": True}), right(11, 8)
    )


def test_the_vector_by_brute_force():
    (mask, probs), n, s = some(), 11, 10
    keep_n, keep_s = float(SCHEDULE.alpha_bar[n]), float(SCHEDULE.alpha_bar[s])

    def transition(keep: float) -> Tensor:
        return keep * torch.eye(K, dtype=torch.float64) + (1 - keep) / K

    step, cumulative_n, cumulative_s = transition(keep_n / keep_s), transition(keep_n), transition(keep_s)
    expected = torch.zeros_like(probs)
    for k, i in itertools.product(range(K), range(K)):
        expected[:, k] += probs[:, i] * step[k][mask] * cumulative_s[i, k] / cumulative_n[i, k]
    got = weights_as_released(KERNEL, mask, probs, n, s, SCHEDULE, **{**NONE, "vector_denominator": True})
    torch.testing.assert_close(got, expected)


def test_a_certain_answer_and_hardly_any_noise_leave_nothing_to_get_wrong():
    mask, _ = some()
    certain = torch.nn.functional.one_hot(mask, K).movedim(-1, 1).double()
    for n, s in ((2, 1), (1, 0)):
        weights = weights_as_released(KERNEL, mask, certain, n, s, SCHEDULE)
        assert distance(weights / weights.sum(1, keepdim=True), KERNEL.posterior(mask, certain, n, s, SCHEDULE)) < 0.02


def denoiser(mask: Tensor, i: int) -> Tensor:
    return torch.stack([torch.cos(mask * (k + 1.0) + i) for k in range(K)], 1)


def test_the_sampler_without_mistakes_draws_the_right_chain():
    a, b = (
        sample(denoiser, None, KERNEL, SCHEDULE, 5, generators(1, 2), shape=(2, 8, 9), **mistakes)
        for sample, mistakes in ((posterior, {}), (posterior_as_released, NONE))
    )
    assert torch.equal(a, b)


def test_the_sampler_as_released_keeps_too_much_noise():
    """One-step rates let a pixel keep its noise although the network is sure of its class."""
    truth = torch.zeros(1, 60, 60, dtype=torch.int64)
    sure = 30.0 * torch.nn.functional.one_hot(truth, K).movedim(-1, 1).float()
    left = {}
    for sample in (posterior, posterior_as_released):
        seen = []
        sample(lambda *_: sure, None, KERNEL, SCHEDULE, 4, generators(1), seen.append, shape=(1, 60, 60))
        assert [step.i for step in seen] == [0, 5, 10, 19]
        left[sample] = [float((step.mask != truth).float().mean()) for step in seen[1:]]
    for time, share in zip((5, 10, 19), left[posterior], strict=True):
        assert share == pytest.approx((1 - float(SCHEDULE.alpha_bar[19 - time])) * (K - 1) / K, abs=0.03)
    assert left[posterior_as_released][0] > left[posterior][0] + 0.05


def test_all_mistakes_are_made_unless_they_are_left_out():
    every = {name: True for name in NONE}
    assert torch.equal(
        weights_as_released(KERNEL, *some(), 14, 8, SCHEDULE),
        weights_as_released(KERNEL, *some(), 14, 8, SCHEDULE, **every),
    )


def test_bad_calls():
    mask, probs = some()
    for kernel in (AbsorbingKernel(K), UniformKernel(torch.tensor([K, K]))):
        with pytest.raises(InputError, match="a uniform kernel"):
            weights_as_released(kernel, mask, probs, 3, 1, SCHEDULE)
    for n, s in ((3, 3), (3, -1), (20, 1)):
        with pytest.raises(InputError):
            weights_as_released(KERNEL, mask, probs, n, s, SCHEDULE)
