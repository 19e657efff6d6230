"""Any number of classes to slots and back: no probability is lost, and what has no slot keeps its proportions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddps.config import ScheduleConfig
from ddps.diffusion import AbsorbingKernel, UniformKernel
from ddps.slots import SlotPlan, from_slots, labels_to_slots, plan_slots, slot_kernel, to_slots


def probabilities(classes: int, seed: int = 0, spread: float = 3.0, size: tuple[int, int] = (6, 9)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(classes, *size, generator=generator)).softmax(0)


def plan_of(probs: Tensor, max_slots: int = 8) -> SlotPlan:
    return plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), max_slots)


@settings(max_examples=60, deadline=None)
@given(classes=st.integers(2, 200), max_slots=st.integers(2, 12), seed=st.integers(0, 1000), spread=st.floats(0.1, 20))
def test_to_slots_and_back_is_the_identity(classes, max_slots, seed, spread):
    probs = probabilities(classes, seed, spread)
    plan = plan_of(probs, max_slots)
    slots = to_slots(probs, plan)
    assert 2 <= plan.slots <= max_slots and slots.shape == (plan.slots, 6, 9)
    assert len(set(plan.classes.tolist())) == len(plan.classes)
    torch.testing.assert_close(slots.sum(0), torch.ones(6, 9), rtol=0, atol=1e-4)
    back = from_slots(slots, probs, plan)
    torch.testing.assert_close(back, probs, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 200), seed=st.integers(0, 1000))
def test_other_conserves_probability_and_proportions(classes, seed):
    probs = probabilities(classes, seed)
    plan = plan_of(probs, 5)
    refined = probabilities(plan.slots, seed + 1)
    answer = from_slots(refined, probs, plan)
    assert (answer >= 0).all()
    torch.testing.assert_close(answer.sum(0), torch.ones(6, 9), rtol=0, atol=1e-5)
    torch.testing.assert_close(answer[plan.classes], refined[: len(plan.classes)])
    if plan.other:
        outside = torch.ones(classes, dtype=torch.bool)
        outside[plan.classes] = False
        rest = probs[outside]
        torch.testing.assert_close(answer[outside].sum(0), refined[-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(answer[outside] * rest.sum(0), rest * refined[-1], rtol=0, atol=1e-6)


def test_candidates_are_the_classes_with_most_probability():
    probs = torch.tensor([0.05, 0.5, 0.1, 0.3, 0.05])[:, None, None].expand(5, 4, 4)
    plan = plan_of(probs, 4)
    assert plan.classes.tolist() == [1, 3, 2] and plan.other and plan.slots == 4
    torch.testing.assert_close(to_slots(probs, plan)[:, 0, 0], torch.tensor([0.5, 0.3, 0.1, 0.1]))


def test_a_class_likely_in_one_pixel_only_is_a_candidate_and_a_negligible_one_is_not():
    probs = torch.zeros(4, 100, 100)
    probs[0, :, :50], probs[1, :, 50:] = 1, 1
    probs[:, 0, 0] = torch.tensor([0.2, 0.0, 0.8, 0.0])
    probs[3], probs[0] = 1e-6, probs[0] - 1e-6
    assert plan_of(probs).classes.tolist() == [1, 0, 2]


def test_all_classes_fit():
    plan = plan_of(probabilities(8, spread=0.1), 8)
    assert not plan.other and plan.slots == 8 and sorted(plan.classes.tolist()) == list(range(8))


@pytest.mark.parametrize(("classes", "slots"), [(1, 1), (2, 2), (30, 2)])
def test_one_sure_class(classes, slots):
    probs = torch.zeros(classes, 4, 4)
    probs[0] = 1
    plan = plan_of(probs)
    assert plan.slots == slots and plan.classes[0] == 0
    torch.testing.assert_close(from_slots(to_slots(probs, plan), probs, plan), probs)


def test_other_where_nothing_is_left_over_goes_evenly_to_the_rest():
    probs = torch.zeros(5, 1, 1)
    probs[:2] = 0.5
    plan = SlotPlan(torch.tensor([0, 1]), 5, other=True)
    answer = from_slots(torch.tensor([0.4, 0.3, 0.3])[:, None, None], probs, plan)[:, 0, 0]
    torch.testing.assert_close(answer, torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1]))


def test_the_inputs_are_left_alone():
    probs = probabilities(20)
    plan = plan_of(probs, 4)
    refined = probabilities(4, 1)
    before, refined_before = probs.clone(), refined.clone()
    from_slots(refined, probs, plan)
    assert torch.equal(probs, before) and torch.equal(refined, refined_before)


@pytest.mark.parametrize("other", [True, False])
def test_labels_to_slots(other):
    plan = SlotPlan(torch.tensor([4, 0, 2]), 6, other)
    labels = torch.tensor([[0, 2, 4], [1, 255, 5]])
    outside = 3 if other else 255
    assert labels_to_slots(labels, plan).tolist() == [[1, 2, 0], [outside, 255, outside]]


def test_labels_that_are_no_class_are_void():
    plan = SlotPlan(torch.tensor([1, 0]), 2, other=False)
    assert labels_to_slots(torch.tensor([[-1, 0, 7, 1]]), plan, -1).tolist() == [[-1, 1, -1, 0]]


def test_uniform_noise_stays_within_each_images_own_slots():
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    kernel = slot_kernel(ScheduleConfig(), 4, valid)
    assert isinstance(kernel, UniformKernel)
    noise = kernel.prior((2, 30, 30), [torch.Generator().manual_seed(b) for b in range(2)])
    assert noise[0].unique().tolist() == [0, 1] and noise[1].unique().tolist() == [0, 1, 2, 3]


def test_absorbing_noise_is_the_state_after_the_last_slot():
    kernel = slot_kernel(ScheduleConfig(kernel="absorbing"), 4, torch.ones(2, 4, dtype=torch.bool))
    assert isinstance(kernel, AbsorbingKernel) and (kernel.prior((2, 3, 3), None) == 4).all()


def test_what_does_not_fit_still_has_the_other_slot():
    probs = torch.eye(12)[:, :, None].clone()
    plan = plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), 8)
    assert plan.other and plan.slots == 8
