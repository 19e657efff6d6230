"""The nearest label of certain classes, and what it does for classes that share a slot."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddps.canvas import Canvas
from ddps.diffusion.samplers import Step
from ddps.nearest_labels import REACH, labels_around, nearest_labels, regrouped
from ddps.predictions import Prediction, load_prediction
from ddps.slot_sharing import rest_in_last
from ddps.slots import SlotPlan
from ddps.tiling import Tile

WANTED = [1, 3, 4]


def nearest(labels: Tensor) -> Tensor:
    return nearest_labels(labels, torch.isin(labels, torch.tensor(WANTED)))


def nearest_one(labels: np.ndarray, row: int, column: int) -> set[int]:
    """The wanted labels that are nearest, by looking at every pixel."""
    rows, columns = np.nonzero(np.isin(labels, WANTED))
    near = (abs(rows - row) <= REACH) & (abs(columns - column) <= REACH)
    away = (rows - row) ** 2 + (columns - column) ** 2
    return set(labels[rows[near], columns[near]][away[near] == away[near].min()].tolist()) if near.any() else {-1}


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 50), (40, 45), (17, 60)])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.4])
def test_it_is_the_nearest(size, share):
    generator = torch.Generator().manual_seed(int(1000 * share) + size[1])
    labels = torch.randint(-1, 6, size, generator=generator)
    labels[torch.rand(size, generator=generator) >= share] = 255
    found = nearest(labels)
    assert found.shape == size and found.dtype == torch.int64
    for row in range(size[0]):
        for column in range(size[1]):
            assert found[row, column].item() in nearest_one(labels.numpy(), row, column)


def test_equally_near_pixels_count_by_where_they_are():
    labels = torch.full((5, 5), 255)
    labels[2, 4] = 1
    labels[2, 0] = labels[0, 2] = labels[4, 2] = 4
    assert nearest(labels)[2, 2] == 4  # the left one, in its own row
    labels[2, 0], labels[2, 4] = 255, 255
    labels[0, 2], labels[4, 2] = 3, 1
    assert nearest(labels)[2, 2] == 3  # the upper one


def test_reach_ends():
    labels = torch.full((1, 2 * REACH + 3), 255)
    labels[0, REACH + 1] = 3
    found = nearest(labels)[0]
    assert found[0] == found[-1] == -1 and (found[1:-1] == 3).all()


# In the canvas

SIZE, CLASSES = (60, 300), 12


def rare_classes() -> Prediction:
    """Stripes of classes 0 and 1, and upon them small squares of classes 2 to 11; void at the left."""
    labels = torch.arange(SIZE[1]).div(50, rounding_mode="floor").remainder(2).expand(SIZE).clone()
    for which in range(2, CLASSES):
        left = 28 * (which - 1) - 8
        labels[25:35, left : left + 10] = which
    labels[:, :5] = 255
    return load_prediction(labels, SIZE, "labels", 255, CLASSES)


def grown(prediction: Prediction, by: int) -> Tensor:
    """(3, H, W) slots: classes 0 and 1, and the rest, whose squares have grown."""
    labels = prediction.argmax()
    rest = ((labels > 1) & (labels < CLASSES)).float()[None, None]
    rest = torch.nn.functional.max_pool2d(rest, 2 * by + 1, 1, by)[0, 0] > 0
    slots = torch.stack([(labels == 0) & ~rest, (labels == 1) & ~rest, rest]).float()
    slots[0, labels == 255] = 1.0
    return (slots * 0.96 + 0.01) / (slots * 0.96 + 0.01).sum(0)


def shared(order: Tensor | None = None) -> SlotPlan:
    """Classes 0 and 1 have slots, all the others share one, led by class 11."""
    classes = torch.tensor([0, 1, 11, *range(2, 11)])
    classes = classes if order is None else order[classes]
    return SlotPlan(classes[:3], CLASSES, False, rest_in_last(classes, CLASSES, 3))


def canvas_of(by: int) -> Canvas:
    prediction = rare_classes()
    canvas = Canvas(prediction, 16, 1.0, recorded_steps=1)
    canvas.add(Tile(0, 0, *SIZE), shared(), grown(prediction, by))
    return canvas


def test_what_the_slot_of_the_rest_wins_goes_to_the_class_that_is_near():
    answer = canvas_of(3).answers().labels
    for which in range(2, CLASSES):
        rows, columns = (answer == which).nonzero().unbind(1)
        left = 28 * (which - 1) - 8
        assert (rows.min(), rows.max()) == (22, 37) and (columns.min(), columns.max()) == (left - 3, left + 12)
        assert len(rows) == 16 * 16


def test_probabilities_say_the_same_as_labels():
    canvas = canvas_of(3)
    probs = canvas.probs()
    assert torch.equal(probs.argmax(0), canvas.answers().labels)
    torch.testing.assert_close(probs.sum(0), torch.ones(SIZE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [Tile(0, 250, 60, 50), Tile(10, 70, 13, 9), Tile(24, 0, 1, 300), Tile(34, 47, 2, 1)])
def test_a_window_is_that_part_of_the_whole(window):
    canvas = canvas_of(6)
    rows, columns = window.slices_in(Tile(0, 0, *SIZE))
    torch.testing.assert_close(canvas.window(window), canvas.probs()[:, rows, columns], rtol=0, atol=1e-6)


def test_ids_do_not_decide():
    prediction, canvas = rare_classes(), canvas_of(3)
    order = torch.tensor([5, 7, 11, 1, 10, 2, 9, 3, 8, 4, 0, 6])  # class 0 is one of several in a slot
    named = torch.where(prediction.native == 255, 255, order[prediction.native.clamp(max=CLASSES - 1)])
    other = Canvas(load_prediction(named, SIZE, "labels", 255, CLASSES), 16, 1.0)
    other.add(Tile(0, 0, *SIZE), shared(order), grown(prediction, 3))
    assert torch.equal(other.answers().labels, order[canvas.answers().labels])


def test_out_of_reach_the_slot_shows_the_class_with_the_most_pixels():
    prediction = rare_classes()
    canvas = Canvas(prediction, 16, 1.0)
    slots = torch.full((3, *SIZE), 0.01)
    slots[2] = 0.98
    canvas.add(Tile(0, 0, *SIZE), shared(), slots)
    labels = canvas.answers().labels
    assert (labels[:8] == 11).all() and (labels[-8:] == 11).all()  # the squares are 25 rows away
    assert labels[20, 25] == 2 and labels[20, 81] == 4


def test_void_is_nobodys_class():
    """It lies between two squares, nearer to either than they are to each other."""
    labels = torch.zeros(20, 60, dtype=torch.int64)
    labels[5:15, 5:15], labels[5:15, 45:55], labels[:, 20:40] = 1, 2, 255
    prediction = load_prediction(labels, (20, 60), "labels", 255, 3)
    around = labels_around(prediction, Tile(0, 0, 20, 60))
    assert around is not None
    classes = torch.tensor([0, 1, 2])
    unshared, shared = around.classes_of(Tile(0, 0, 20, 60), rest_in_last(classes, 3, 2))
    assert unshared == 0 and shared.unique().tolist() == [1, 2]
    assert (shared[:, :30] == 1).all() and (shared[5:15, 30:] == 2)[:, 1:].all()


def test_steps_on_the_way_show_the_near_class_too():
    canvas = canvas_of(3)
    record = canvas.recorder(Tile(0, 0, *SIZE), shared())
    assert record is not None
    slots = torch.nn.functional.avg_pool2d(grown(canvas.prediction, 3)[None], 2).log()
    record(Step(0, 1, slots.argmax(1), slots))
    [step] = canvas.trajectory()
    inside = canvas.prediction.argmax() != 255
    assert (step == canvas.answers().labels)[inside].float().mean() > 0.97
    assert sorted(step.unique().tolist()) == [*range(CLASSES), 255]


def test_planes_are_added_where_they_belong():
    planes = torch.tensor([[[0.5, 0.2]], [[0.3, 0.3]], [[0.2, 0.5]]])
    places = [torch.tensor(1), torch.tensor([[0, -1]]), torch.tensor([[0, 1]])]
    assert torch.equal(regrouped(planes, places, 3), torch.tensor([[[0.5, 0.0]], [[0.5, 0.7]], [[0.0, 0.0]]]))


def test_only_label_maps_have_labels_around():
    probs = load_prediction(torch.full((3, 4, 4), 1 / 3), (4, 4), "probs")
    assert labels_around(probs, Tile(0, 0, 4, 4)) is None
    around = labels_around(rare_classes(), Tile(0, 100, 60, 20))
    assert around is not None and around.area == Tile(0, 100 - REACH, 60, 20 + 2 * REACH)
    assert around.shown().nonzero()[:, 0].tolist() == [0, 1, 4, 5, 6]
