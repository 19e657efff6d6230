"""Where tensors are made: on the device asked for, or that of what came in, and never on torch's default device."""

import pytest
import torch

from ddps.diffusion.as_released import posterior_as_released, weights_as_released
from ddps.diffusion.draws import draw_categorical, draw_classes, draw_uniform
from ddps.diffusion.kernels import AbsorbingKernel, UniformKernel
from ddps.diffusion.samplers import free, posterior, single
from ddps.diffusion.schedules import cosine_schedule, linear_schedule, make_schedule

SCHEDULE = make_schedule("linear", 20)
KERNELS = (UniformKernel, AbsorbingKernel)


def generators(count=1):
    return [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]


@pytest.fixture
def elsewhere():
    """A default device on which nothing can be computed with what lies on the CPU."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("kernel_class", KERNELS)
@pytest.mark.parametrize("sampler", [free, posterior])
def test_chains_on_the_cpu_whatever_the_default_device(elsewhere, kernel_class, sampler):
    mask = torch.zeros(2, 4, 5, dtype=torch.int64, device="cpu")
    logits = torch.zeros(2, 3, 4, 5, device="cpu")
    for start in ({"prediction": mask}, {"prediction": None, "shape": (2, 4, 5)}):
        seen = []
        answer = sampler(
            lambda *_: logits, kernel=kernel_class(3), schedule=SCHEDULE, steps=3, generators=generators(2),
            callback=seen.append, **start,
        )  # fmt: skip
        assert answer is logits and len(seen) == 3
        assert {step.mask.device.type for step in seen} == {"cpu"}


def test_rates_and_labels_on_the_cpu_whatever_the_default_device(elsewhere):
    mask = torch.zeros(2, 4, 5, dtype=torch.int64, device="cpu")
    rates = torch.tensor([0.5, 1.0], device="cpu")
    for kernel in (UniformKernel(3), AbsorbingKernel(3)):
        assert kernel.marginal(mask, rates).device.type == "cpu"
        assert kernel.posterior(mask, mask, 4, 2, SCHEDULE).device.type == "cpu"
    probs = torch.full((2, 3, 4, 5), 1 / 3, device="cpu")
    assert weights_as_released(UniformKernel(3), mask, probs, 4, 2, SCHEDULE).device.type == "cpu"


@pytest.mark.parametrize("given", [None, 2])
def test_draws_go_where_they_are_wanted(given):
    wanted = given and generators(given)
    assert draw_uniform((2, 3, 3), wanted, "meta").device.type == "meta"
    assert draw_classes([4, 2], (2, 3, 3), wanted, "meta").device.type == "meta"
    assert draw_categorical(torch.ones(2, 4, 3, 3, device="meta"), wanted).device.type == "meta"


@pytest.mark.parametrize("kernel_class", KERNELS)
def test_masks_go_where_they_are_wanted(kernel_class):
    kernel = kernel_class(4)
    assert kernel.prior((2, 3, 3), generators(2), "meta").device.type == "meta"
    mask = torch.zeros(2, 3, 3, dtype=torch.int64, device="meta")
    assert kernel.sample(mask, 0.5, generators(2)).device.type == "meta"
    assert kernel.sample(mask, torch.tensor([0.5, 0.1]), generators(2)).device.type == "meta"
    assert kernel.marginal(mask, torch.tensor([0.5, 0.1])).device.type == "meta"
    assert kernel.posterior(mask, mask, 4, 2, SCHEDULE).device.type == "meta"


def test_chains_run_where_they_are_wanted():
    logits = torch.zeros(1, 4, 3, 3, device="meta")
    for sampler, steps in (
        (free, {"steps": 3}),
        (posterior, {"steps": 3}),
        (posterior_as_released, {"steps": 3}),
        (single, {}),
    ):
        seen = []
        sampler(
            lambda *_: logits, None, UniformKernel(4), SCHEDULE, generators=generators(), callback=seen.append,
            shape=(1, 3, 3), device="meta", **steps,
        )  # fmt: skip
        assert seen and all(step.mask.device.type == "meta" for step in seen), sampler


def test_schedules_are_tables_in_memory_whatever_the_default_device(elsewhere):
    for schedule in (linear_schedule(20), cosine_schedule(20)):
        assert schedule.alpha_bar.device.type == schedule.alpha.device.type == "cpu"
