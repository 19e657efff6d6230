"""One tile through the chain: at its own size, enlarged, and both."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps.config import InferenceConfig, ScheduleConfig
from ddps.diffusion import samplers
from ddps.diffusion.samplers import Step
from ddps.diffusion.schedules import make_schedule, network_steps
from ddps.models.slot_unet import SlotUNet
from ddps.settings import Settings
from ddps.slots import slot_kernel
from ddps.tile_chain import TileChain, keep_in_reach, zoom_of

from .conftest import TINY

SCHEDULE = ScheduleConfig()


def network_of(noise: float) -> SlotUNet:
    torch.manual_seed(0)
    network = SlotUNet(TINY.network).eval().requires_grad_(False)  # type: ignore[arg-type]
    for parameter in network.parameters():
        parameter.add_(noise * torch.randn_like(parameter))
    return network


class Watched(SlotUNet):
    """Remembers the sizes of the images that it was shown."""

    def condition(self, image, probs, valid=None, classes=None):
        self.sizes = [*getattr(self, "sizes", []), tuple(image.shape[-2:])]
        return super().condition(image, probs, valid, classes)


def chain_of(network: SlotUNet, **asked) -> TileChain:
    nothing = {
        "steps": 2, "sampler": None, "seed": 0, "num_samples": 1, "guidance_scale": 0.0, "tile": None,
        "return_trajectory": False, "callback": None,
    }  # fmt: skip
    settings = Settings.over(InferenceConfig(), SCHEDULE.num_steps, **{**nothing, **asked})
    return TileChain(network, make_schedule(SCHEDULE.kind, SCHEDULE.num_steps), SCHEDULE, settings, torch.float32)


def tile_of(height: int = 30, width: int = 41, slots: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    coarse = 3 * torch.randn(1, slots, 5, 6, generator=generator)
    probs = F.interpolate(coarse, (height, width), mode="bilinear").softmax(1)[0]
    return torch.rand(3, height, width, generator=generator), probs


def test_small_images_are_enlarged_at_most_twice():
    assert zoom_of((360, 480), 0) == 1 and zoom_of((360, 480), 540) == 1.5
    assert zoom_of((100, 4000), 540) == 2 and zoom_of((600, 4000), 540) == 1


@pytest.mark.parametrize("size", [(30, 41), (1, 1), (2, 33), (64, 64)])
@pytest.mark.parametrize("zoom", [1.0, 1.37, 2.0])
def test_untrained_weights_change_nothing_that_is_clear(size, zoom):
    image, probs = tile_of(*size)
    answer = chain_of(network_of(0.0)).refine(image, probs, zoom, False, [0])[-1]
    assert answer.shape == probs.shape
    torch.testing.assert_close(answer.sum(0), torch.ones(size))
    top = probs.topk(2, 0).values
    clear = top[0] - top[1] > 0.2
    assert torch.equal(answer.argmax(0)[clear], probs.argmax(0)[clear])


def test_a_label_map_keeps_every_pixel_under_untrained_weights():
    image, probs = tile_of()
    labels = F.one_hot(probs.argmax(0), 3).permute(2, 0, 1) * 0.85 + 0.05
    answer = chain_of(network_of(0.0), steps=1).refine(image, labels, 2.0, True, [0])[-1]
    assert torch.equal(answer.argmax(0), labels.argmax(0))


@pytest.mark.parametrize(
    ("zoom", "asked", "sizes"),
    [
        (1.0, {}, [(32, 44)]),
        (2.0, {}, [(60, 84), (32, 44)]),
        (2.0, {"steps": 1}, [(60, 84)]),
        (2.0, {"sampler": "single"}, [(60, 84)]),
        (1.5, {"steps": 4}, [(48, 64), (32, 44)]),
    ],
)
def test_the_first_of_several_passes_sees_the_tile_at_its_own_size(zoom, asked, sizes):
    torch.manual_seed(0)
    network = Watched(TINY.network).eval()  # type: ignore[arg-type]
    chain_of(network, **asked).refine(*tile_of(), zoom, False, [0])
    assert network.sizes == sizes


def test_one_enlarged_pass_is_the_pass_over_the_enlarged_tile():
    image, probs = tile_of()
    network = network_of(0.2)
    size = (60, 82)
    large = F.interpolate(image[None], size, mode="bicubic")[0].clamp(0, 1)
    finer = F.interpolate(probs[None], size, mode="bilinear")[0]
    chain = chain_of(network, steps=1)
    expected = chain.refine(large, finer, 1.0, False, [3])[-1].log()[None]
    expected = F.interpolate(expected, (30, 41), mode="bilinear", antialias=True)[0].softmax(0)
    torch.testing.assert_close(chain.refine(image, probs, 2.0, False, [3])[-1], expected, rtol=0, atol=1e-4)


def test_both_sizes_have_a_say():
    image, probs = tile_of()
    network = network_of(0.2)
    both = chain_of(network).refine(image, probs, 2.0, False, [0])[-1]
    small = chain_of(network, steps=1).refine(image, probs, 1.0, False, [0])[-1]
    assert not torch.allclose(both, small, atol=1e-3)
    # what the fine pass says alone follows from the mean; it has to be a distribution that differs from the coarse one
    fine = (2 * both.log() - small.log()).softmax(0)
    again = ((fine.log() + small.log()) / 2).softmax(0)
    torch.testing.assert_close(again, both, rtol=0, atol=1e-4)
    assert not torch.allclose(fine, small, atol=1e-2)


def test_chains_are_averaged_and_seeds_decide():
    image, probs = tile_of()
    chain = chain_of(network_of(0.4), steps=3)
    one, two, mean = (chain.refine(image, probs, 1.5, False, seeds)[-1] for seeds in ([1], [2], [1, 2]))
    assert not torch.equal(one, two)
    torch.testing.assert_close(mean, (one + two) / 2)
    assert torch.equal(one, chain.refine(image, probs, 1.5, False, [1])[-1])


def test_recorded_steps_are_on_the_tiles_own_grid():
    image, probs = tile_of()
    recorded: list[Step] = []
    called: list[Step] = []
    chain = chain_of(network_of(0.2), steps=3, callback=called.append)
    chain.refine(image, probs, 2.0, False, [0, 1], recorded.append)
    assert [tuple(step.logits.shape) for step in recorded] == [(1, 3, 15, 21)] * 3
    assert len(called) == 6 and all(step.mask.shape == called[0].mask.shape for step in called)


def test_guidance_works_at_both_sizes():
    image, probs = tile_of()
    network = network_of(0.3)
    plain = chain_of(network).refine(image, probs, 2.0, False, [0])[-1]
    guided = chain_of(network, guidance_scale=2.0).refine(image, probs, 2.0, False, [0])[-1]
    assert bool(guided.isfinite().all()) and not torch.allclose(plain, guided, atol=1e-3)


def test_inputs_are_not_changed():
    image, probs = tile_of()
    before = image.clone(), probs.clone()
    chain_of(network_of(0.2)).refine(image, probs, 2.0, False, [0])
    assert torch.equal(image, before[0]) and torch.equal(probs, before[1])
    assert replace(TINY.inference, working_size=720).working_size == 720


@pytest.mark.parametrize("sampler", ["free", "posterior"])
def test_the_answer_after_some_steps_is_that_of_the_chain_cut_short(sampler):
    image, probs = tile_of(32, 44)
    network, schedule = network_of(0.2), make_schedule(SCHEDULE.kind, SCHEDULE.num_steps)
    answers = chain_of(network, steps=4, sampler=sampler, after=(1, 3)).refine(image, probs, 1.0, False, [3])
    assert len(answers) == 3
    (alone,) = chain_of(network, steps=4, sampler=sampler).refine(image, probs, 1.0, False, [3])
    assert torch.equal(answers[-1], alone)
    condition = network.condition(image[None], probs[None])
    last = []

    def denoiser(mask, i):
        last[:] = [network.denoise(mask, i, condition)]
        return last[0].logits

    for number, answer in zip((1, 3), answers, strict=False):
        times = network_steps(SCHEDULE.num_steps, 4)[:number]
        kernel, first = slot_kernel(SCHEDULE, condition.slots), condition.coarse.argmax(1)
        getattr(samplers, sampler)(denoiser, first, kernel, schedule, times, [torch.Generator().manual_seed(3)])
        torch.testing.assert_close(answer, network.finish(last[0], condition)[0].softmax(0), rtol=0, atol=1e-5)


def test_answers_after_some_steps_are_averaged_over_chains_and_sizes():
    image, probs = tile_of()
    chain = chain_of(network_of(0.2), steps=3, after=(1, 2))
    one, two, both = (chain.refine(image, probs, 1.5, False, seeds) for seeds in ([1], [2], [1, 2]))
    for index in range(3):
        torch.testing.assert_close(both[index], (one[index] + two[index]) / 2)
    assert not torch.allclose(one[0], one[1], atol=1e-3)


def test_a_class_of_a_label_map_does_not_appear_far_away():
    labels = torch.zeros(50, 70, dtype=torch.int64)
    labels[20:30, 10:20] = 1
    slots = F.one_hot(labels, 2).permute(2, 0, 1) * 0.8 + 0.1
    wanted = torch.full((2, 50, 70), 0.2)
    wanted[1] = 0.8
    kept = keep_in_reach(wanted, slots, 8)
    torch.testing.assert_close(kept.sum(0), torch.ones(50, 70))
    near = kept.argmax(0) == 1
    assert bool(near[12:38, 2:28].all()) and not bool(near[:, 36:].any()) and not bool(near[44:].any())


def test_where_no_class_is_near_nothing_is_taken_away():
    slots = torch.full((2, 20, 20), 0.5)
    wanted = torch.rand(2, 20, 20).softmax(0)
    assert torch.equal(keep_in_reach(wanted, slots, 4), wanted)


def test_a_class_that_is_near_stays_however_sure_the_network_is_of_one_that_is_not():
    slots = torch.zeros(3, 20, 20)
    slots[0, :, :10], slots[1, :, 10:] = 1, 1
    wanted = torch.zeros(3, 20, 20)
    wanted[2] = 1
    kept = keep_in_reach(wanted, slots, 2)
    torch.testing.assert_close(kept.sum(0), torch.ones(20, 20))
    assert kept[2].max() == 0
