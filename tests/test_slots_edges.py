"""Edges of the slots: ties, limits, one class left over, what stands for several classes."""

import pytest
import torch

from ddps.config import ScheduleConfig
from ddps.predictions import load_prediction
from ddps.slots import (
    NEGLIGIBLE_MASS,
    NOWHERE_LIKELY,
    SlotPlan,
    from_slots,
    labels_to_slots,
    plan_slots,
    slot_kernel,
    slots_of,
    to_slots,
)


def column(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)[:, None, None]


def test_equal_classes_keep_their_order():
    plan = plan_slots(torch.full((4000,), 1 / 4000), torch.full((4000,), 0.5), 8)
    assert plan.classes.tolist() == list(range(7)) and plan.other and plan.num_classes == 4000


def test_limits_belong_to_the_classes_left_out():
    mass = torch.tensor([0.5, 0.4, NEGLIGIBLE_MASS, 1e-5, 2 * NEGLIGIBLE_MASS])
    peak = torch.tensor([1.0, 1.0, NOWHERE_LIKELY, NOWHERE_LIKELY, 0.0])
    assert plan_slots(mass, peak, 8).classes.tolist() == [0, 1, 4]
    assert plan_slots(mass, torch.tensor([1, 1, 0, NOWHERE_LIKELY + 0.01, 0]), 8).classes.tolist() == [0, 1, 4, 3]


def test_a_plan_knows_how_many_classes_there_are():
    plan = plan_slots(torch.tensor([0.6, 0.4]), torch.tensor([1.0, 1.0]), 8)
    assert plan.num_classes == 2 and not plan.other and plan.ids.tolist() == [0, 1]
    plan = plan_slots(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([1.0, 1.0, 1.0]), 2)
    assert plan.num_classes == 3 and plan.ids.tolist() == [0, 3]


def test_labels_outside_the_classes_are_void_on_both_sides():
    plan = SlotPlan(torch.tensor([5, 0, 2]), 6, other=True)
    slots = labels_to_slots(torch.tensor([[5, 6, 7, -1, -100, 3]]), plan)
    assert slots.tolist() == [[0, 255, 255, 255, 255, 3]] and slots.dtype == torch.int64


def test_one_class_left_over_takes_all_of_the_other_slot():
    plan = SlotPlan(torch.tensor([2, 0]), 3, other=True)
    answer = from_slots(column(0.5, 0.2, 0.3), column(0.7, 0.2, 0.1), plan)
    torch.testing.assert_close(answer, column(0.2, 0.3, 0.5))


def test_a_plane_for_several_classes_gets_their_share_where_nothing_is_left_over():
    plan = SlotPlan(torch.tensor([0]), 3, other=True)
    answer = from_slots(column(0.6, 0.4), column(1.0, 0.0, 0.0), plan, torch.tensor([1, 1, 3]))
    torch.testing.assert_close(answer, column(0.6, 0.1, 0.3))
    exact = column(1.0, 0.0, 0.0, dtype=torch.float64)
    answer = from_slots(column(0.5, 0.5, dtype=torch.float64), exact, plan, torch.tensor([1, 1, 2]))
    torch.testing.assert_close(answer, column(0.5, 1 / 6, 1 / 3, dtype=torch.float64), rtol=0, atol=1e-15)


def test_the_answer_has_the_precision_of_the_prediction():
    plan = SlotPlan(torch.tensor([0]), 3, other=True)
    for dtype in (torch.float64, torch.float32):
        answer = from_slots(column(0.6, 0.4), column(0.5, 0.25, 0.25, dtype=dtype), plan)
        assert answer.dtype == dtype
        torch.testing.assert_close(answer, column(0.6, 0.2, 0.2, dtype=dtype), rtol=0, atol=1e-7)


def test_slots_stay_on_the_device_of_the_prediction():
    plan = SlotPlan(torch.tensor([1]), 4, other=True)
    original, refined = column(0.1, 0.5, 0.2, 0.2), column(0.7, 0.3)
    with torch.device("meta"):
        answer = from_slots(refined, original, plan)
    assert answer.device.type == "cpu" and answer.sum() == pytest.approx(1)


def test_without_padding_all_slots_are_drawn_from():
    noise = slot_kernel(ScheduleConfig(), 3).prior((1, 40, 40), [torch.Generator().manual_seed(0)])
    assert noise.unique().tolist() == [0, 1, 2]


def test_slots_of_a_window_are_those_of_its_probabilities():
    probs = torch.rand(6, 8, 9, generator=torch.Generator().manual_seed(0)).mul(6).softmax(0)
    window = load_prediction(probs, (8, 9), "probs").window(0, 0, 8, 9)
    plan, slots = slots_of(window, 4)
    expected = plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), 4)
    assert plan.classes.tolist() == expected.classes.tolist() and plan.other and plan.slots == 4
    torch.testing.assert_close(slots, to_slots(probs, plan), rtol=0, atol=1e-5)


def test_a_window_of_two_classes_has_slots_and_one_of_one_class_has_none():
    labels = torch.full((8, 8), 3)
    assert slots_of(load_prediction(labels, (8, 8), "labels", num_classes=5).window(0, 0, 8, 8), 8) is None
    labels[0, 0] = 4
    plan, slots = slots_of(load_prediction(labels, (8, 8), "labels", num_classes=5).window(0, 0, 8, 8), 8)
    assert sorted(plan.ids.tolist()) == [3, 4] and slots.shape == (2, 8, 8)
    probs = torch.zeros(3, 8, 8)
    probs[0], probs[1, 0, 0] = 1, 0.5
    probs[0, 0, 0] = 0.5
    plan, slots = slots_of(load_prediction(probs, (8, 8), "probs").window(0, 0, 8, 8), 8)
    assert plan.classes.tolist() == [0, 1]
    torch.testing.assert_close(slots.sum(0), torch.ones(8, 8))
