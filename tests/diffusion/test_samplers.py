"""Samplers over denoisers whose answers are known."""

import pytest
import torch
from torch import Tensor

from ddps.diffusion.kernels import AbsorbingKernel, UniformKernel
from ddps.diffusion.samplers import Step, free, posterior, single
from ddps.diffusion.schedules import make_schedule, network_steps
from ddps.errors import InputError

SCHEDULE = make_schedule("linear", 20)
CHAINS = (free, posterior)
KERNELS = (UniformKernel, AbsorbingKernel)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Oracle:
    """Always answers the same labels; remembers what it was asked."""

    def __init__(self, labels: Tensor, num_classes: int, sharpness: float = 30.0):
        self.logits = sharpness * torch.nn.functional.one_hot(labels, num_classes).movedim(-1, 1).float()
        self.seen: list[tuple[Tensor, int]] = []

    def __call__(self, mask: Tensor, i: int) -> Tensor:
        self.seen.append((mask.clone(), i))
        return self.logits


def labels_of(*shape: int, num_classes: int = 5) -> Tensor:
    return torch.randint(num_classes, shape, generator=generators(0)[0])


@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_chains_visit_the_steps_and_return_the_last_logits(sampler, kernel_class, steps):
    labels = labels_of(2, 30, 30)
    oracle, seen = Oracle(labels, 5), []
    shape = tuple(labels.shape)
    logits = sampler(oracle, None, kernel_class(5), SCHEDULE, steps, generators(1, 2), seen.append, shape=shape)
    assert logits is oracle.logits
    assert [i for _, i in oracle.seen] == network_steps(20, steps)
    assert [(step.index, step.i) for step in seen] == list(enumerate(network_steps(20, steps)))
    for step, (mask, _) in zip(seen, oracle.seen, strict=True):
        assert isinstance(step, Step) and torch.equal(step.mask, mask) and step.logits is logits
    if steps > 1:
        # The last mask holds noise index 0: one pixel in 100,000 is noise.
        assert (oracle.seen[-1][0] == labels).float().mean() > 0.99


@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_every_mask_of_a_chain_holds_the_noise_of_its_time(sampler, kernel_class):
    """With a certain x_0, strict and free chains have the same marginals: q(x_n | x_0)."""
    labels = labels_of(1, 120, 120)
    oracle, kernel = Oracle(labels, 5), kernel_class(5)
    sampler(oracle, None, kernel, SCHEDULE, 6, generators(3), shape=(1, 120, 120))
    for mask, i in oracle.seen:
        rows = kernel.marginal(labels, float(SCHEDULE.alpha_bar[19 - i]))
        expected = rows.gather(1, labels[:, None]).mean()
        assert abs(float((mask == labels).float().mean() - expected)) < 0.02


def test_strict_chain_keeps_what_free_noising_draws_anew():
    """Between neighbouring times the posterior moves few pixels; a fresh draw moves many."""
    labels, changed = labels_of(1, 60, 60), {}
    for sampler in CHAINS:
        oracle = Oracle(labels, 5)
        sampler(oracle, None, UniformKernel(5), SCHEDULE, 20, generators(3), shape=(1, 60, 60))
        changed[sampler] = float((oracle.seen[9][0] != oracle.seen[10][0]).float().mean())
    assert changed[posterior] < 0.1 < 0.3 < changed[free]


def test_a_first_prediction_is_noised_to_the_first_time():
    prediction = labels_of(1, 100, 100)
    oracle = Oracle(prediction, 5)
    for times, kept in (([19], 1.0), ([10, 19], float(SCHEDULE.alpha_bar[9])), ([0, 19], 0.0)):
        oracle.seen.clear()
        free(oracle, prediction, AbsorbingKernel(5), SCHEDULE, times, generators(1))
        assert [i for _, i in oracle.seen] == times
        assert float((oracle.seen[0][0] == prediction).float().mean()) == pytest.approx(kept, abs=0.02)


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_single_is_one_pass_from_noise(kernel_class):
    labels = labels_of(2, 50, 50)
    oracle = Oracle(labels, 5)
    assert single(oracle, None, kernel_class(5), SCHEDULE, generators(1, 2), shape=(2, 50, 50)) is oracle.logits
    ((mask, i),) = oracle.seen
    assert i == 0
    if kernel_class is AbsorbingKernel:
        assert (mask == 5).all()
    else:
        assert torch.equal(mask, UniformKernel(5).prior((2, 50, 50), generators(1, 2)))


@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_an_image_s_result_does_not_depend_on_its_batch(sampler, kernel_class):
    def denoiser(mask: Tensor, i: int) -> Tensor:
        return torch.stack([torch.cos(mask * (k + 1.0) + i) for k in range(5)], 1)

    together = sampler(denoiser, None, kernel_class(5), SCHEDULE, 4, generators(1, 2, 3), shape=(3, 9, 11))
    alone = sampler(denoiser, None, kernel_class(5), SCHEDULE, 4, generators(2), shape=(1, 9, 11))
    assert torch.equal(together[1:2], alone)


@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_padding_slots_are_never_visited(sampler, dtype):
    counts = torch.tensor([2, 6, 3])
    padding = (torch.arange(8)[None] >= counts[:, None])[:, :, None, None]
    seen: list[Tensor] = []

    def denoiser(mask: Tensor, i: int) -> Tensor:
        seen.append(mask)
        return torch.zeros(3, 8, 40, 40, dtype=dtype).masked_fill(padding, -torch.inf)

    logits = sampler(denoiser, None, UniformKernel(counts), SCHEDULE, 20, generators(1, 2, 3), shape=(3, 40, 40))
    assert logits.dtype == dtype
    assert all((mask.amax((1, 2)) < counts).all() for mask in seen)


def test_bad_calls_are_refused():
    oracle, kernel = Oracle(labels_of(1, 4, 4), 5), UniformKernel(5)
    with pytest.raises(InputError, match="a first prediction, or the shape"):
        free(oracle, None, kernel, SCHEDULE, 3, generators(1))
    for times in ([], [3, 3], [5, 2], [-1, 4], [4, 20]):
        with pytest.raises(InputError, match="increasing network times"):
            posterior(oracle, None, kernel, SCHEDULE, times, generators(1), shape=(1, 4, 4))
    with pytest.raises(InputError, match="one generator for each"):
        free(oracle, labels_of(1, 4, 4), kernel, SCHEDULE, 3, generators(1, 2))
    assert oracle.seen == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize("kernel_class", KERNELS)
def test_chains_do_not_wait_for_the_device_and_draw_the_same_noise_on_it(sampler, kernel_class):
    labels, masks = labels_of(2, 16, 16), {}
    for device in ("cpu", "cuda"):
        oracle = Oracle(labels, 5)
        oracle.logits = oracle.logits.to(device)
        shape = tuple(labels.shape)
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            sampler(oracle, None, kernel_class(5), SCHEDULE, 5, generators(1, 2), shape=shape, device=device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        masks[device] = torch.stack([mask.cpu() for mask, _ in oracle.seen])
    assert (masks["cpu"] == masks["cuda"]).float().mean() > 0.999


class Settling:
    """Another answer at every pass, of which a smaller and smaller part is new."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, mask: Tensor, i: int) -> Tensor:
        self.calls += 1
        labels = torch.zeros(2, 10, 10, dtype=torch.int64)
        labels[0].view(-1)[: 100 >> self.calls] = self.calls % 5
        return 30 * torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).float()


@pytest.mark.parametrize("sampler", CHAINS)
@pytest.mark.parametrize(("share", "calls"), [(0.0, 20), (0.6, 2), (0.13, 4), (0.051, 6), (0.99, 2)])
def test_a_chain_ends_once_its_answer_settles_for_every_image(sampler, share, calls):
    # pass n has another class at 100 >> n pixels of the first image, after one at 100 >> (n - 1)
    denoiser, seen = Settling(), []
    logits = sampler(
        denoiser, None, UniformKernel(5), SCHEDULE, 20, generators(1, 2), seen.append, shape=(2, 10, 10),
        early_exit=share,
    )  # fmt: skip
    assert denoiser.calls == len(seen) == calls and logits is seen[-1].logits
