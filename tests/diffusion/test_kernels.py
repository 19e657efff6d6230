"""Kernels against explicit transition matrices: marginals, composition, posteriors, and what sampling draws."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ddps.diffusion.draws import draw_categorical
from ddps.diffusion.kernels import AbsorbingKernel, UniformKernel
from ddps.diffusion.schedules import Schedule, make_schedule
from ddps.errors import InputError

KERNELS = (UniformKernel, AbsorbingKernel)
CASES = [("linear", 20), ("cosine", 5)]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def matrix(kernel_class: type, num_classes: int, alpha: float) -> Tensor:
    """Q[i, j] = q(j | i), written down state by state."""
    if kernel_class is UniformKernel:
        eye = torch.eye(num_classes, dtype=torch.float64)
        return alpha * eye + (1 - alpha) / num_classes * torch.ones_like(eye)
    q = alpha * torch.eye(num_classes + 1, dtype=torch.float64)
    q[:, num_classes] = 1 - alpha
    q[num_classes, num_classes] = 1
    return q


def chain(kernel_class: type, num_classes: int, schedule: Schedule, n: int, s: int) -> Tensor:
    """q(x_n | x_s) as the product of one-step matrices."""
    product = torch.eye(num_classes + (kernel_class is AbsorbingKernel), dtype=torch.float64)
    for t in range(s + 1, n + 1):
        product = product @ matrix(kernel_class, num_classes, float(schedule.alpha[t]))
    return product


def every_pair(states: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """(1, states, K) x_n by row, and one-hot x_0 (1, K, states, K) by column."""
    x_n = torch.arange(states)[None, :, None].expand(1, states, num_classes)
    x_0 = torch.eye(num_classes, dtype=torch.float64)[None, :, None, :].expand(1, num_classes, states, num_classes)
    return x_n, x_0


def brute_force(to_s: Tensor, s_to_n: Tensor, num_classes: int) -> Tensor:
    """Bayes, entry by entry: (x_n, x_0, x_s); NaN where x_0 cannot have led to x_n."""
    to_n = to_s @ s_to_n
    return torch.einsum("kj,ik->jik", s_to_n, to_s[:num_classes]) / to_n[:num_classes].T[:, :, None]


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize(("kind", "num_steps"), CASES)
@pytest.mark.parametrize("num_classes", range(1, 7))
def test_posterior_is_brute_force_bayes_for_every_pair_of_steps(kernel_class, kind, num_steps, num_classes):
    schedule, kernel = make_schedule(kind, num_steps), kernel_class(num_classes)
    states = num_classes + (kernel_class is AbsorbingKernel)
    x_n, x_0 = every_pair(states, num_classes)
    belief = torch.rand(1, num_classes, states, num_classes, dtype=torch.float64, generator=generators(0)[0]) ** 3
    belief = belief / belief.sum(1, keepdim=True)
    for n in range(num_steps):
        for s in range(-1, n):
            to_s, s_to_n = (chain(kernel_class, num_classes, schedule, *pair) for pair in ((s, -1), (n, s)))
            bayes = brute_force(to_s, s_to_n, num_classes)
            possible = bayes.isfinite().all(-1)
            exact = kernel.posterior(x_n, x_0, n, s, schedule)[0].movedim(0, -1)
            assert total_variation(exact[possible], bayes[possible]) < 1e-6

            # Where the network believes in an x_0 that cannot have led to x_n, only the possible ones count.
            weights = belief[0].movedim(0, -1)[..., None] * possible[:, None, :, None]
            averaged = (weights * bayes[:, None].nan_to_num()).sum(2) / weights.sum(2)
            ours = kernel.posterior(x_n, belief, n, s, schedule)[0].movedim(0, -1)
            assert total_variation(ours, averaged) < 1e-6
            assert total_variation(ours.sum(-1, keepdim=True), torch.ones(1, dtype=torch.float64)) < 1e-9


def total_variation(p: Tensor, q: Tensor) -> float:
    assert p.dtype == torch.float64
    return float((p - q).abs().sum(-1).max()) / 2


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize(("kind", "num_steps"), CASES)
def test_posterior_sums_to_one_in_float32_with_many_classes(kernel_class, kind, num_steps):
    schedule, kernel = make_schedule(kind, num_steps), kernel_class(151)
    logits = 20 * torch.randn(2, 151, 5, 4, generator=generators(1)[0])
    mask = kernel.sample(logits.argmax(1), 0.5, generators(1, 2))
    for n in range(num_steps):
        for s in {-1, n // 2 - 1, n - 1}:
            rows = kernel.posterior(mask, logits.softmax(1), n, s, schedule)
            assert rows.dtype == torch.float32 and (rows >= 0).all()
            torch.testing.assert_close(rows.sum(1), torch.ones(2, 5, 4), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_posterior_of_labels_is_that_of_their_one_hot(kernel_class):
    schedule, kernel = make_schedule("linear", 20), kernel_class(4)
    labels = torch.randint(4, (1, 6, 6), generator=generators(0)[0])
    mask = kernel.sample(labels, 0.5, generators(3))
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    assert torch.equal(kernel.posterior(mask, labels, 9, 4, schedule), kernel.posterior(mask, one_hot, 9, 4, schedule))


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("num_classes", [1, 2, 6])
def test_marginals_are_rows_of_the_matrix_and_composed_steps_equal_direct_ones(kernel_class, num_classes):
    schedule, kernel = make_schedule("linear", 20), kernel_class(num_classes)
    x_0 = torch.eye(num_classes, dtype=torch.float64)[None, :, None, :]
    stepped = x_0
    for n in range(20):
        stepped = kernel.marginal(stepped, float(schedule.alpha[n]))
        direct = kernel.marginal(x_0, float(schedule.alpha_bar[n]))
        rows = matrix(kernel_class, num_classes, float(schedule.alpha_bar[n]))[:num_classes]
        torch.testing.assert_close(direct[0, :, 0].T, rows, rtol=0, atol=1e-12)
        torch.testing.assert_close(stepped, direct, rtol=0, atol=1e-12)
        torch.testing.assert_close(direct.sum(1), torch.ones_like(direct[:, 0]), rtol=0, atol=1e-12)
        for s in range(n):
            via_s = kernel.marginal(kernel.marginal(x_0, float(schedule.alpha_bar[s])), schedule.alpha_between(n, s))
            torch.testing.assert_close(via_s, direct, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("alpha_bar", [0.9, 0.3, 0.000009])
def test_sampled_frequencies_are_the_marginal(kernel_class, alpha_bar):
    kernel = kernel_class(5)
    x_0 = torch.full((1, 200, 200), 3)
    drawn = kernel.sample(x_0, alpha_bar, generators(7))
    expected = kernel.marginal(x_0[:, :1, :1].clone(), alpha_bar).flatten()
    assert_frequencies(drawn, expected)


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_drawing_from_the_posterior_leads_back_to_the_marginal(kernel_class):
    schedule, kernel = make_schedule("linear", 20), kernel_class(4)
    n, s = 14, 6
    x_0 = torch.full((1, 200, 200), 2)
    x_n = kernel.sample(x_0, float(schedule.alpha_bar[n]), generators(1))
    x_s = draw_categorical(kernel.posterior(x_n, x_0, n, s, schedule), generators(2))
    assert_frequencies(x_s, kernel.marginal(x_0[:, :1, :1].clone(), float(schedule.alpha_bar[s])).flatten())


def assert_frequencies(drawn: Tensor, expected: Tensor) -> None:
    """Every state within five standard deviations."""
    counts = torch.bincount(drawn.flatten(), minlength=len(expected)).double()
    total = drawn.numel()
    spread = (expected.double() * (1 - expected.double()) * total).sqrt()
    assert len(counts) == len(expected)
    assert ((counts - total * expected.double()).abs() <= 5 * spread + 1e-3 * (spread == 0)).all()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.entries = max(self.entries, result.numel())
        return result


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_sampling_takes_one_entry_per_pixel_and_the_posterior_one_per_state(kernel_class):
    kernel, mask = kernel_class(30), torch.zeros(2, 6, 7, dtype=torch.int64)
    with LargestTensor() as sampling:
        kernel.sample(mask, 0.5, generators(1, 2))
    assert sampling.entries == mask.numel()
    with LargestTensor() as posterior:
        kernel.posterior(mask, torch.full((2, 30, 6, 7), 1 / 30), 9, 4, make_schedule("linear", 20))
    assert posterior.entries <= 31 * mask.numel()


def test_no_noise_keeps_every_pixel_and_full_noise_is_the_prior():
    x_0 = torch.randint(6, (2, 9, 7), generator=generators(0)[0])
    for kernel in (UniformKernel(6), AbsorbingKernel(6)):
        assert torch.equal(kernel.sample(x_0, 1.0, generators(1, 2)), x_0)
    assert (AbsorbingKernel(6).sample(x_0, 0.0, generators(1, 2)) == 6).all()
    assert (AbsorbingKernel(6).prior((2, 9, 7), None) == 6).all()
    assert UniformKernel(6).prior((1, 60, 60), generators(1)).unique().tolist() == list(range(6))


def test_rates_per_image():
    x_0 = torch.zeros(3, 50, 50, dtype=torch.int64)
    kernel = AbsorbingKernel(2)
    masked = (kernel.sample(x_0, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), generators(1, 2, 3)) == 2).float()
    assert masked.mean((1, 2))[[0, 2]].tolist() == [0.0, 1.0]
    assert 0.4 < masked[1].mean() < 0.6
    rows = UniformKernel(2).marginal(x_0, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(rows[:, 0, 0, 0], torch.tensor([1.0, 0.75, 0.5]))


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_the_noise_of_an_image_does_not_depend_on_its_batch(kernel_class):
    kernel = kernel_class(5)
    x_0 = torch.randint(5, (3, 8, 8), generator=generators(0)[0])
    together = kernel.sample(x_0, 0.5, generators(11, 12, 13))
    for b, seed in enumerate((11, 12, 13)):
        assert torch.equal(kernel.sample(x_0[b : b + 1], 0.5, generators(seed))[0], together[b])
    with pytest.raises(InputError, match="one generator for each"):
        kernel.sample(x_0, 0.5, generators(1))


def test_uniform_noise_stays_within_each_image_s_own_classes():
    kernel, schedule = UniformKernel(torch.tensor([2, 5, 1])), make_schedule("linear", 20)
    noise = kernel.prior((3, 40, 40), generators(1, 2, 3))
    assert [image.unique().tolist() for image in noise] == [[0, 1], [0, 1, 2, 3, 4], [0]]

    logits = torch.randn(3, 6, 40, 40, dtype=torch.float64, generator=generators(4)[0])
    padding = torch.arange(6)[None] >= torch.tensor([2, 5, 1])[:, None]
    probs = logits.masked_fill(padding[:, :, None, None], -torch.inf).softmax(1)
    for n, s in ((19, 12), (7, 6), (3, -1)):
        rows = kernel.posterior(noise, probs, n, s, schedule)
        assert rows.isfinite().all() and (rows.movedim(1, -1)[padding[:, None, None].expand(3, 40, 40, 6)] == 0).all()
        for b, count in enumerate((2, 5, 1)):
            alone = UniformKernel(count).posterior(noise[b : b + 1], probs[b : b + 1, :count], n, s, schedule)
            torch.testing.assert_close(rows[b : b + 1, :count], alone, rtol=0, atol=1e-12)


def test_impossible_kernels_and_beliefs_are_refused():
    schedule, mask = make_schedule("linear", 20), torch.zeros(1, 2, 2, dtype=torch.int64)
    for bad in (lambda: UniformKernel(0), lambda: AbsorbingKernel(0), lambda: UniformKernel(torch.tensor([3, 0]))):
        with pytest.raises(InputError, match="at least 1 class"):
            bad()
    for kernel in (UniformKernel(4), AbsorbingKernel(4)):
        with pytest.raises(InputError, match="classes; got 3 channels"):
            kernel.posterior(mask, torch.full((1, 3, 2, 2), 1 / 3), 4, 3, schedule)
        with pytest.raises(InputError, match="noise indices"):
            kernel.posterior(mask, mask, 3, 4, schedule)
    with pytest.raises(InputError, match="for each of 1 images"):
        UniformKernel(torch.tensor([3, 4])).prior((1, 2, 2), None)
