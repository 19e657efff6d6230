"""Edges of the diffusion's arithmetic: numbers that fall on a limit, rates per image, chains from a prediction."""

import pytest
import torch

from ddps.diffusion import as_released, draws, kernels
from ddps.diffusion.as_released import posterior_as_released
from ddps.diffusion.draws import draw_categorical
from ddps.diffusion.kernels import AbsorbingKernel, UniformKernel
from ddps.diffusion.samplers import is_settled, posterior, single
from ddps.diffusion.schedules import cosine_schedule, linear_schedule, make_schedule

SCHEDULE = make_schedule("linear", 20)
KERNELS = (UniformKernel, AbsorbingKernel)


def generators(count=1):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_both_schedules_by_their_formulas():
    # METHOD: linear from 0.99999 to 0.000009; cosine between the same
    linear, cosine = linear_schedule(5).alpha_bar, cosine_schedule(4).alpha_bar
    expected = [0.99999 - 0.999981 * n / 4 for n in range(5)] + [1]
    torch.testing.assert_close(linear, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    share = (torch.cos((torch.arange(4, dtype=torch.float64) + 4) * torch.pi / 8) + 1) ** 2
    torch.testing.assert_close(cosine[:4], share * (0.99999 - 0.000009) + 0.000009, rtol=1e-12, atol=0)


def test_probabilities_of_drawn_classes():
    torch.testing.assert_close(SCHEDULE.beta(4) * 4, 1 - SCHEDULE.alpha)
    torch.testing.assert_close(SCHEDULE.beta_bar(4) * 4, 1 - SCHEDULE.alpha_bar)
    assert SCHEDULE.beta_bar(4)[-1] == 0 and 0 < SCHEDULE.beta(3)[3] < 1 / 3


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_full_noise_keeps_nothing_even_where_the_number_drawn_is_zero(kernel_class, monkeypatch):
    monkeypatch.setattr(kernels, "draw_uniform", lambda shape, *_: torch.zeros(shape))
    kernel, mask = kernel_class(5), torch.zeros(1, 30, 30, dtype=torch.int64)
    noise = kernel.sample(mask, 0.0, generators())
    assert torch.equal(noise, kernel.prior((1, 30, 30), generators()))
    assert (noise != mask).any()


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_rates_per_image_are_taken_in_the_precision_of_the_distribution(kernel_class):
    kernel = kernel_class(3)
    probs = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generators()[0]).softmax(1)
    rates = torch.tensor([1 / 3, 1 / 7], dtype=torch.float64)
    together = kernel.marginal(probs, rates)
    for b in range(2):
        torch.testing.assert_close(
            together[b : b + 1], kernel.marginal(probs[b : b + 1], float(rates[b])), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_a_marginal_scales_with_what_it_is_given(kernel_class):
    kernel, probs = kernel_class(3), torch.rand(2, 3, 4, 5, generator=generators()[0])
    torch.testing.assert_close(kernel.marginal(4 * probs, 0.3), 4 * kernel.marginal(probs, 0.3))
    torch.testing.assert_close(kernel.marginal(probs, 0.3).sum(1), probs.sum(1))


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_noise_with_rates_per_image_in_one_call(kernel_class):
    mask = torch.zeros(2, 50, 50, dtype=torch.int64)
    noised = kernel_class(5).sample(mask, torch.tensor([1.0, 0.0]), generators(2))
    assert (noised[0] == 0).all() and (noised[1] != 0).float().mean() > 0.7


def test_a_level_that_rounds_up_to_the_total_draws_a_possible_state(monkeypatch):
    monkeypatch.setattr(draws, "draw_uniform", lambda shape, *_: torch.ones(shape))
    probs = torch.tensor([0.2, 0.8, 0.0])[None, :, None, None].expand(1, 3, 2, 7)
    assert (draw_categorical(probs, None) == 1).all()
    assert (draw_categorical(probs.flip(1), None) == 2).all()


class Recording(UniformKernel):
    """Remembers in which precision it was asked."""

    asked = None

    def posterior(self, x_n, x0, n, s, schedule):
        self.asked = x0.dtype
        return super().posterior(x_n, x0, n, s, schedule)


def test_half_precision_logits_are_turned_to_probabilities_in_float32():
    kernel = Recording(3)
    for dtype, asked in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ):
        logits = torch.zeros(1, 3, 4, 4, dtype=dtype)
        posterior(lambda *_, logits=logits: logits, None, kernel, SCHEDULE, 2, generators(), shape=(1, 4, 4))
        assert kernel.asked == asked


def test_so_does_the_released_scheme_and_it_counts_its_passes(monkeypatch):
    seen, drawn = [], []
    draw = draws.draw_categorical
    monkeypatch.setattr(
        as_released, "draw_categorical", lambda weights, g: drawn.append(weights.dtype) or draw(weights, g)
    )
    logits = torch.zeros(1, 3, 4, 4, dtype=torch.float16)
    posterior_as_released(
        lambda *_: logits, None, UniformKernel(3), SCHEDULE, 4, generators(), seen.append, shape=(1, 4, 4)
    )
    assert drawn == [torch.float32] * 3 and [step.index for step in seen] == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", [posterior, posterior_as_released])
def test_strict_chains_start_from_a_prediction_noised_to_their_first_time(sampler):
    prediction = torch.randint(5, (1, 100, 100), generator=generators()[0])
    logits = 30.0 * torch.nn.functional.one_hot(prediction, 5).movedim(-1, 1).float()
    for times, kept in (([19], 1.0), ([10, 19], float(SCHEDULE.alpha_bar[9]))):
        seen = []
        sampler(lambda *_: logits, prediction, UniformKernel(5), SCHEDULE, times, generators(), seen.append)
        share = float((seen[0].mask == prediction).float().mean())
        assert share == pytest.approx(kept + (1 - kept) / 5, abs=0.02)


def test_single_takes_a_prediction_for_its_shape_and_tells_the_callback():
    prediction, seen = torch.zeros(1, 60, 60, dtype=torch.int64), []
    logits = torch.zeros(1, 5, 60, 60)
    assert single(lambda *_: logits, prediction, UniformKernel(5), SCHEDULE, generators(), seen.append) is logits
    assert [(step.index, step.i) for step in seen] == [(0, 0)]
    assert float((seen[0].mask == prediction).float().mean()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("share", "settled"), [(0.25, True), (0.24, False), (0.5, True)])
def test_settled_with_exactly_the_share(share, settled):
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = 1
    assert is_settled(torch.zeros(1, 2, 2, dtype=torch.int64), logits, share) is settled
