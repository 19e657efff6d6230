"""More classes than slots in a label map: who shares a slot with whom."""

import pytest
import torch
from torch import Tensor

from ddps import DDPSRefiner
from ddps.context import Context
from ddps.prediction_window import LabelWindow
from ddps.predictions import load_prediction
from ddps.slot_sharing import MOST_COMPARED, rest_in_last, share_slots
from ddps.slots import slots_of

from .scenes import at_image_size, scene


def stripes(count: int, wide: int = 40) -> Tensor:
    """Class k in the k-th stripe; the first ones are wider."""
    labels = torch.cat([torch.full((wide + count - k,), k) for k in range(count)])
    return labels.expand(32, -1).clone()


def by_pixels(labels: Tensor) -> Tensor:
    return labels.flatten().bincount().argsort(descending=True, stable=True)


@pytest.mark.parametrize("slots", [2, 3, 5])
def test_neighbours_never_share(slots):
    labels = stripes(14)
    sharing = share_slots(labels, by_pixels(labels), 14, slots)
    assert sharing.leaders.tolist() == list(range(slots))
    assert torch.equal(share_slots(labels.T, by_pixels(labels), 14, slots).slot_of, sharing.slot_of)
    assert set(sharing.slot_of.tolist()) == set(range(slots)) and all(sharing.shared)
    assert (sharing.slot_of[1:] != sharing.slot_of[:-1]).all()
    assert sharing.slot_of.bincount().min() >= 14 // slots - 1


def test_the_least_company_is_taken_where_all_slots_have_some():
    labels = torch.full((80, 80), 0)
    labels[:, 40:] = 1
    labels[38:42, 30:34] = 2  # deep in class 0, class 1 is near only on one side
    assert share_slots(labels, by_pixels(labels), 3, 2).slot_of.tolist() == [1, 0, 0]


def test_all_of_a_slots_classes_are_company():
    labels = torch.zeros(40, 400, dtype=torch.int64)
    labels[:, 200:] = 1
    for which, left in ((2, 300), (3, 20), (4, 60), (5, 140)):  # class 2 lies in class 1, the others in class 0
        labels[16:24, left : left + 8] = which
    assert share_slots(labels, torch.arange(6), 6, 2).slot_of.tolist() == [0, 1, 0, 1, 1, 1]


def test_single_pixels_count_on_both_sides():
    labels = torch.full((96, 200), 255)
    labels[:, 100:] = 0
    labels[40, :3] = 1
    labels[40, 8], labels[40, 16], labels[40, 160] = 2, 2, 2  # two near three pixels of class 1, one inside class 0
    assert share_slots(labels, torch.tensor([0, 1, 2]), 3, 2).slot_of.tolist() == [0, 1, 1]


def test_equal_classes_keep_their_order():
    labels = torch.arange(40).repeat_interleave(8).expand(8, -1).clone()
    prediction = load_prediction(labels, tuple(labels.shape), "labels", 255, 40)
    found = slots_of(prediction.window(0, 0, *prediction.size), 5)
    assert found is not None and found[0].leaders.tolist() == [0, 1, 2, 3, 4]


def test_classes_that_do_not_occur_have_no_slot():
    labels = stripes(4) + 2
    labels[0] = 255
    sharing = share_slots(labels, torch.tensor([2, 3, 4, 5]), 9, 3)
    assert sharing.slot_of.tolist()[:2] == [-1, -1] and sharing.slot_of.tolist()[6:] == [-1, -1, -1]
    assert sharing.slot_of[2] == 0 and sum(sharing.shared) == 1


def test_of_very_many_classes_all_have_a_slot():
    count = 3 * MOST_COMPARED
    labels = torch.arange(count).repeat_interleave(4).view(32, -1)
    sharing = share_slots(labels, torch.arange(count), count, 8)
    held = sharing.slot_of.bincount(minlength=8)
    assert held.sum() == count and held.min() >= count // 16


def test_the_rest_in_the_last_slot():
    sharing = rest_in_last(torch.tensor([4, 0, 2, 5]), 6, 3)
    assert sharing.slot_of.tolist() == [1, -1, 2, -1, 0, 2]
    assert sharing.leaders.tolist() == [4, 0, 2] and sharing.shared == [False, False, True]


def test_slots_hold_what_their_classes_have():
    labels = stripes(11, 6)
    labels[:3] = 255
    prediction = load_prediction(labels, tuple(labels.shape), "labels", 255, 13)
    window = prediction.window(0, 0, *prediction.size)
    assert isinstance(window, LabelWindow)
    found = slots_of(window, 4)
    assert found is not None
    plan, slots = found
    assert plan.slots == 4 and not plan.other and plan.ids.tolist() == plan.leaders.tolist() == [0, 1, 2, 3]
    every = window.own_classes().grouped(torch.arange(13), False)
    for slot, plane in enumerate(slots):
        torch.testing.assert_close(plane, every[plan.slot_of == slot].sum(0))
    torch.testing.assert_close(slots.sum(0), torch.ones(prediction.size))
    assert torch.equal(slots.argmax(0)[3:], plan.slot_of[labels[3:]])


def test_a_network_that_knows_its_classes_is_told_which_slot_holds_the_rest():
    labels = stripes(6)
    prediction = load_prediction(labels, tuple(labels.shape), "labels", 255, 6)
    found = slots_of(prediction.window(0, 0, *prediction.size), 4, named=True)
    assert found is not None
    plan, slots = found
    assert plan.ids.tolist() == [0, 1, 2, 6] and plan.leaders.tolist() == [0, 1, 2, 3]
    assert plan.slot_of.tolist() == [0, 1, 2, 3, 3, 3] and torch.equal(slots.argmax(0), plan.slot_of[labels])


@pytest.fixture(scope="module")
def universal() -> DDPSRefiner:
    return DDPSRefiner.from_pretrained(device="cpu")


def test_rare_classes_are_refined_like_others(universal):
    """Whether a class is one of the largest must not decide how much of its outline is mended."""
    image = torch.full((3, 160, 240), 0.5)
    truth = torch.zeros(160, 240, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for k in range(1, 15):
        row, column = 8 + 52 * ((k - 1) // 5), 6 + 47 * ((k - 1) % 5)
        truth[row : row + 30, column : column + 30] = k
        image[:, row : row + 30, column : column + 30] = torch.rand(3, 1, 1, generator=generator)
    rough = truth.roll((4, 4), (0, 1))
    better = torch.as_tensor(universal.refine(image, rough, num_classes=15).labels)
    wrong = [(truth == k)[better != truth].sum().item() for k in range(1, 15)]
    before = [(truth == k)[rough != truth].sum().item() for k in range(1, 15)]
    mended = 1 - torch.tensor(wrong) / torch.tensor(before)
    assert mended.mean() > 0.5 and (mended > 0.2).sum() >= 12


def test_the_coarse_pass_reaches_all_classes_of_a_tile(universal):
    """Its windows share slots in their own way."""
    image, logits = scene(800, 900, 12)
    labels = at_image_size(logits, image).argmax(0)
    seen = []

    class Watched(Context):
        def first_pass(self, tile, plan, slots):  # type: ignore[no-untyped-def]
            answer = super().first_pass(tile, plan, slots)
            seen.append((plan, slots, answer))
            return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ddps.context.Context", Watched)
        universal.refine(image, labels, num_classes=12, tile=512)
    assert len(seen) == 4 and any(plan.sharing is not None for plan, _, _ in seen)
    for plan, slots, answers in seen:
        [answer] = answers
        coarse = torch.nn.functional.avg_pool2d(slots, 2, ceil_mode=True)
        assert answer.shape == coarse.shape == (plan.slots, *coarse.shape[1:])
        assert (answer.argmax(0) == coarse.argmax(0)).float().mean() > 0.85
