"""What a wrong call is told, word for word: what was expected, what came, what to try."""

import pytest
import torch

from ddps.diffusion.as_released import weights_as_released
from ddps.diffusion.draws import draw_uniform
from ddps.diffusion.kernels import AbsorbingKernel, UniformKernel
from ddps.diffusion.samplers import free, start_mask, times_of
from ddps.diffusion.schedules import cosine_schedule, linear_schedule, make_schedule, network_steps
from ddps.errors import InputError

SCHEDULE = make_schedule("linear", 20)
MASK, PROBS = torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 4, 2, 2), 0.25)
TWO = UniformKernel(torch.tensor([2, 3]))


def generators(count):
    return [torch.Generator() for _ in range(count)]


CALLS = {
    "no class": (lambda: UniformKernel(0), "at least 1 class; got [0]; try the number of classes of the masks"),
    "no image": (
        lambda: UniformKernel(torch.zeros(0, dtype=torch.int64)),
        "at least 1 class; got []; try the number of classes of the masks",
    ),
    "many images without a class": (
        lambda: UniformKernel(torch.zeros(99, dtype=torch.int64)),
        f"at least 1 class; got [{'0, ' * 19}0,; try the number of classes of the masks",
    ),
    "no class that absorbs": (
        lambda: AbsorbingKernel(0),
        "at least 1 class; got 0; try the number of classes of the masks",
    ),
    "another number of images": (
        lambda: TWO.prior((3, 2, 2), None),
        "num_classes for each of 3 images; got 2 values; try one per image",
    ),
    "another number of distributions": (
        lambda: TWO.marginal(torch.full((3, 3, 2, 2), 1 / 3), 0.5),
        "num_classes for each of 3 images; got 2 values; try one per image",
    ),
    "too few channels": (
        lambda: UniformKernel(5).marginal(PROBS, 0.5),
        "p(x_0) over at least 5 classes; got 4 channels; try one channel per class",
    ),
    "another number of channels": (
        lambda: AbsorbingKernel(5).posterior(MASK, PROBS, 3, 1, SCHEDULE),
        "p(x_0) over 5 classes; got 4 channels; try one per class",
    ),
    "too many generators": (
        lambda: draw_uniform((2, 3, 3), generators(3), "cpu"),
        "one generator for each of the 2 images; got 3; try one per image",
    ),
    "unordered times": (
        lambda: times_of(SCHEDULE, [5, *range(40)]),
        f"increasing network times from 0 to 19; got {str([5, *range(40)])[:60]}; try a number of steps",
    ),
    "nothing to start from": (
        lambda: free(lambda *_: PROBS, None, UniformKernel(4), SCHEDULE, 2, None),
        "a first prediction, or the shape (B, h, w) of the mask; got neither; try shape=(1, 64, 64)",
    ),
    "another kernel": (
        lambda: weights_as_released(AbsorbingKernel(4), MASK, PROBS, 3, 1, SCHEDULE),
        "a uniform kernel over one number of classes; got AbsorbingKernel; try sampler 'posterior'",
    ),
    "no noise to go to": (
        lambda: weights_as_released(UniformKernel(4), MASK, PROBS, 3, -1, SCHEDULE),
        "a noise index s of at least 0; got -1; try the index of the next network time",
    ),
    "indices the wrong way round": (
        lambda: SCHEDULE.alpha_between(2, 5),
        "noise indices -1 <= s < n <= 19; got s=5, n=2; try a smaller s",
    ),
    "an unknown schedule": (
        lambda: make_schedule("x" * 99, 20),
        f"a schedule 'linear' or 'cosine'; got '{'x' * 59}; try one of these",
    ),
    "a schedule of one step": (
        lambda: linear_schedule(1),
        "a schedule of at least 2 steps; got 1; try 20, as in the paper",
    ),
    "a cosine of one step": (
        lambda: cosine_schedule(1),
        "a schedule of at least 2 steps; got 1; try 20, as in the paper",
    ),
    "more steps than the schedule has": (
        lambda: network_steps(20, 21),
        "steps from 1 to 20, the steps of the noise schedule; got 21; try a number within",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_whole_message(name):
    call, message = CALLS[name]
    with pytest.raises(InputError) as raised:
        call()
    assert str(raised.value) == f"expected {message}"


def test_nothing_to_start_from_is_said_whatever_the_device():
    with pytest.raises(InputError, match="neither"):
        start_mask(None, UniformKernel(4), SCHEDULE, 0, None, None, "meta")
