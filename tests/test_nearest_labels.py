"""The nearest label of certain classes, and what it does for classes that share the slot "other"."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddps.canvas import Canvas
from ddps.nearest_labels import REACH, labels_around, nearest_labels
from ddps.predictions import Prediction, load_prediction
from ddps.slots import SlotPlan
from ddps.tiling import Tile

WANTED = torch.tensor([False, True, False, True, True])


def nearest_one(labels: np.ndarray, row: int, column: int) -> set[int]:
    """The wanted labels that are nearest, by looking at every pixel."""
    rows, columns = np.nonzero(np.isin(labels, WANTED.nonzero()[:, 0].numpy()))
    near = (abs(rows - row) <= REACH) & (abs(columns - column) <= REACH)
    away = (rows - row) ** 2 + (columns - column) ** 2
    return set(labels[rows[near], columns[near]][away[near] == away[near].min()].tolist()) if near.any() else {-1}


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (40, 45), (17, 60)])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.4])
def test_it_is_the_nearest(size, share):
    generator = torch.Generator().manual_seed(int(1000 * share) + size[1])
    labels = torch.randint(-1, 6, size, generator=generator)
    labels[torch.rand(size, generator=generator) >= share] = 255
    found = nearest_labels(labels, WANTED)
    assert found.shape == size and found.dtype == torch.int64
    for row in range(size[0]):
        for column in range(size[1]):
            assert found[row, column].item() in nearest_one(labels.numpy(), row, column)


def test_equally_near_pixels_count_by_where_they_are():
    labels = torch.full((5, 5), 255)
    labels[2, 4] = 1
    labels[2, 0] = labels[0, 2] = labels[4, 2] = 4
    assert nearest_labels(labels, WANTED)[2, 2] == 4  # the left one, in its own row
    labels[2, 0], labels[2, 4] = 255, 255
    labels[0, 2], labels[4, 2] = 3, 1
    assert nearest_labels(labels, WANTED)[2, 2] == 3  # the upper one


def test_reach_ends():
    labels = torch.full((1, 2 * REACH + 3), 255)
    labels[0, REACH + 1] = 3
    found = nearest_labels(labels, WANTED)[0]
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


def canvas_of(by: int, classes: tuple[int, int] = (0, 1)) -> Canvas:
    prediction = rare_classes()
    canvas = Canvas(prediction, 16, 1.0)
    canvas.add(Tile(0, 0, *SIZE), SlotPlan(torch.tensor(classes), CLASSES, other=True), grown(prediction, by))
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
    order = torch.tensor([5, 0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 6])
    named = torch.where(prediction.native == 255, 255, order[prediction.native.clamp(max=CLASSES - 1)])
    other = Canvas(load_prediction(named, SIZE, "labels", 255, CLASSES), 16, 1.0)
    other.add(Tile(0, 0, *SIZE), SlotPlan(order[:2], CLASSES, other=True), grown(prediction, 3))
    assert torch.equal(other.answers().labels, order[canvas.answers().labels])


def test_only_label_maps_have_labels_around():
    probs = load_prediction(torch.full((3, 4, 4), 1 / 3), (4, 4), "probs")
    assert labels_around(probs, Tile(0, 0, 4, 4)) is None
    around = labels_around(rare_classes(), Tile(0, 100, 60, 20))
    assert around is not None and around.area == Tile(0, 100 - REACH, 60, 20 + 2 * REACH)
    assert around.shown().nonzero()[:, 0].tolist() == [0, 1, 4, 5, 6]
