"""The prior of any trained network: what is removed, what is noised, and what counts as restored."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import FeaturesNetwork, LabelSpace, ScheduleConfig
from ddps.errors import InputError
from ddps.prior import MaskPrior
from ddps.prior_picture import MASKED, PriorRequest, draw_prior
from ddps.refiner import build_network

FEATURES = DDPSConfig(
    labels=LabelSpace(4, ("a", "b", "c", "d"), void_first=True),
    network=FeaturesNetwork(in_channels=(4, 6), channels=8, embed_dim=3, dim=8, dim_mults=(1, 1), out_dim=8,
                            num_classes=5),
)  # fmt: skip


def paper(config: DDPSConfig = FEATURES) -> DDPSRefiner:
    torch.manual_seed(0)
    return DDPSRefiner(config, build_network(config), device="cpu")


def mask_of(height: int = 40, width: int = 52, classes: int = 4) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.int64)
    for k in range(1, classes):
        mask[8 * k : 8 * k + 12, 6 * k : 6 * k + 20] = k
    mask[:2] = -1
    return mask


@pytest.fixture(params=["universal", "tiny", "features", "absorbing"])
def refiner(request, tiny_refiner) -> DDPSRefiner:
    if request.param == "universal":
        return DDPSRefiner.from_pretrained(device="cpu")
    if request.param == "tiny":
        return tiny_refiner
    schedule = ScheduleConfig(kernel="absorbing" if request.param == "absorbing" else "uniform")
    return paper(replace(FEATURES, schedule=schedule))


def states_of(refiner: DDPSRefiner) -> int:
    return 5 if isinstance(refiner.config.network, FeaturesNetwork) else 4


@pytest.mark.parametrize("sampler", ["free", "posterior"])
def test_samples_of_every_kind_of_model(refiner, sampler):
    prior = MaskPrior(refiner, (18, 31), states_of(refiner))
    one, same, other = (prior.sample(seed, 3, sampler) for seed in (0, 0, 1))
    assert one.shape == (18, 31) and one.dtype == torch.int64
    assert one.min() >= 0 and one.max() < states_of(refiner)
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("size", [(160, 208), (37, 50), (16, 16)])
def test_noised_to_the_asked_share(refiner, size):
    states = states_of(refiner)
    prior = MaskPrior(refiner, size, states)
    mask = torch.zeros(size, dtype=torch.int64)
    for noise in (0.1, 0.5, 0.9):
        restored = prior.restore(mask, noise)
        assert restored.noise == pytest.approx(noise, abs=0.03)
        stride = 4 if states == 5 else 2
        assert restored.noised.shape == (-(-size[0] // stride), -(-size[1] // stride))
        if size[0] == 160:
            # half of the draws of 2 classes are right by chance, and so on; a masked state is no class
            absorbing = refiner.config.schedule.kernel == "absorbing"
            wrong = restored.noise * (1 if absorbing else (states - 1) / states)
            assert float((restored.noised != 0).float().mean()) == pytest.approx(wrong, abs=0.05)
        assert restored.labels.shape == size and 0 <= restored.accuracy <= 100


def test_the_embedded_weights_restore_a_mask_from_half_noise():
    mask = mask_of(96, 128)
    prior = MaskPrior(DDPSRefiner.from_pretrained(device="cpu"), (96, 128), 4)
    states = torch.where(mask < 0, -1, mask)
    restored = prior.restore(states, 0.5)
    grid = states[1::2, 1::2]
    noised_right = float((restored.noised == grid)[grid >= 0].float().mean()) * 100
    assert noised_right < 70 and restored.accuracy > noised_right + 12


def test_void_is_noised_and_not_counted():
    refiner = DDPSRefiner.from_pretrained(device="cpu")
    prior = MaskPrior(refiner, (32, 32), 4)
    nothing = torch.full((32, 32), -1)
    restored = prior.restore(nothing, 0.01)
    assert math.isnan(restored.accuracy)
    assert restored.noised.unique().tolist() == [0, 1, 2, 3]


def test_a_condition_is_not_seen(tiny_refiner):
    """Everything the network is given besides the mask is the same for every image."""
    network, seen = tiny_refiner.network, []
    condition = network.condition
    try:
        network.condition = lambda image, probs, valid=None: seen.append((image, probs)) or condition(image, probs)
        MaskPrior(tiny_refiner, (16, 16), 4).sample(steps=2)
    finally:
        del network.condition
    ((image, probs),) = seen
    assert len(image.unique()) == 1 and torch.equal(probs, torch.full_like(probs, 0.25))


def test_more_steps_from_a_level_on():
    prior = MaskPrior(paper(), (40, 52), 5)
    mask = mask_of() + 1
    a, b = (prior.restore(mask, 0.5, steps=steps).labels for steps in (1, 5))
    assert not torch.equal(a, b)
    with pytest.raises(InputError, match="steps from this level on"):
        prior.restore(mask, 0.01, steps=5)


def test_bad_requests(tiny_refiner):
    for make in (
        lambda: MaskPrior(tiny_refiner, (8, 8), 4),
        lambda: MaskPrior(tiny_refiner, (16, 16), 1),
        lambda: MaskPrior(tiny_refiner, (16, 16), 65),
        lambda: MaskPrior(paper(), (16, 16), 4),
        lambda: MaskPrior(tiny_refiner, (16, 16), 4).sample(sampler="euler"),
        lambda: MaskPrior(tiny_refiner, (16, 16), 4).sample(steps=21),
        lambda: MaskPrior(tiny_refiner, (16, 16), 4).restore(mask_of(), 0.5),
        lambda: MaskPrior(tiny_refiner, (16, 16), 4).restore(mask_of(16, 16), 2.0),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_picture_of_every_kind_of_model(refiner):
    request = PriorRequest(samples=2, noise=(0.3, 0.7), steps=2, size=(32, 48))
    alone, nothing = draw_prior(refiner, request)
    both, restored = draw_prior(refiner, request, mask_of(), ("a", "b", "c", "d"))
    assert nothing == [] and [round(one.noise, 1) for one in restored] == [0.3, 0.7]
    assert both.height > 2 * alone.height and all(p.getextrema() != ((255, 255),) * 3 for p in (alone, both))


def test_colours_are_those_of_the_classes():
    """The true mask is shown with the palette, void black; the absorbing kernel's masked state is grey."""
    refiner = paper(replace(FEATURES, schedule=ScheduleConfig(kernel="absorbing")))
    palette = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0))
    picture, _ = draw_prior(refiner, PriorRequest(samples=0, noise=(0.5,)), mask_of(), palette=palette)
    colours = {tuple(c) for c in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {*palette, (0, 0, 0), MASKED} <= colours


def test_classes_of_a_mask_that_are_far_apart(tiny_refiner):
    mask = mask_of()
    mask[mask == 3] = 200
    _, restored = draw_prior(tiny_refiner, PriorRequest(samples=1, steps=1, noise=(0.2,)), mask)
    assert restored[0].noised.max() == 3
    one_class = torch.full((20, 20), 7)
    assert draw_prior(tiny_refiner, PriorRequest(samples=0, noise=(0.2,)), one_class)[1][0].noised.max() <= 1
