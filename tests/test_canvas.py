"""Tiles put together: windows, blending, mixing, and what no tile has touched."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps.canvas import WINDOW, Canvas, mix_probs
from ddps.diffusion.samplers import Step
from ddps.predictions import Prediction, load_prediction
from ddps.slots import SlotPlan, plan_slots, to_slots
from ddps.tiling import Tile, blend_window, plan_tiles

SIZE = (90, 130)


def some_prediction(classes: int = 6, size: tuple[int, int] = SIZE) -> Prediction:
    generator = torch.Generator().manual_seed(0)
    return load_prediction(2 * torch.randn(classes, 9, 13, generator=generator), size, "logits")


def plan_in(prediction: Prediction, tile: Tile, max_slots: int) -> tuple[SlotPlan, Tensor]:
    probs = prediction.crop(tile.top, tile.left, tile.height, tile.width)
    plan = plan_slots(probs.mean((1, 2)), probs.amax((1, 2)), max_slots)
    return plan, to_slots(probs, plan)


def painted(mix: float = 1.0, max_slots: int = 4, skip: int | None = None) -> Canvas:
    """Random answers in overlapping tiles."""
    prediction = some_prediction()
    canvas = Canvas(prediction, 16, mix)
    generator = torch.Generator().manual_seed(1)
    for index, tile in enumerate(plan_tiles(SIZE, 64, 16)):
        plan, slots = plan_in(prediction, tile, max_slots)
        answer = (2 * torch.randn(slots.shape, generator=generator)).softmax(0)
        if index != skip:
            canvas.add(tile, plan, answer)
    return canvas


def part(whole: Tensor, window: Tile) -> Tensor:
    rows, columns = window.slices_in(Tile(0, 0, *SIZE))
    return whole[..., rows, columns]


@pytest.mark.parametrize("mix", [1.0, 0.4])
@pytest.mark.parametrize(
    "window", [Tile(0, 0, 90, 130), Tile(0, 0, 1, 1), Tile(40, 40, 30, 50), Tile(89, 0, 1, 130), Tile(13, 100, 60, 30)]
)
def test_a_window_is_that_part_of_the_whole(mix, window):
    canvas = painted(mix)
    torch.testing.assert_close(canvas.window(window), part(canvas.probs(), window), rtol=0, atol=1e-6)


def test_probabilities_sum_to_one():
    probs = painted().probs()
    assert probs.shape == (6, *SIZE) and probs.dtype == torch.float32 and (probs >= 0).all()
    torch.testing.assert_close(probs.sum(0), torch.ones(SIZE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_slots", [2, 4, 8])
def test_tiles_that_repeat_the_segmentor_give_the_segmentors_answer(max_slots):
    prediction = some_prediction()
    canvas = Canvas(prediction, 16, 1.0)
    for tile in plan_tiles(SIZE, 64, 16):
        canvas.add(tile, *plan_in(prediction, tile, max_slots))
    assert (canvas.probs() - prediction.probs()).abs().max() < 1e-3


def test_with_no_tile_the_segmentors_answer_stays():
    prediction = some_prediction()
    canvas = Canvas(prediction, 16, 1.0)
    torch.testing.assert_close(canvas.probs(), prediction.probs(), rtol=0, atol=1e-6)
    assert torch.equal(canvas.answers().labels, prediction.argmax())


def test_a_tile_left_out_keeps_the_segmentors_answer_where_no_other_reaches():
    tiles = plan_tiles(SIZE, 64, 16)
    canvas, corner = painted(skip=0), Tile(0, 0, tiles[-1].top, tiles[1].left)
    assert corner.height > 0 and corner.width > 0
    torch.testing.assert_close(canvas.window(corner), part(canvas.prediction.probs(), corner), rtol=0, atol=1e-6)
    beside = Tile(0, 70, 20, 20)
    assert (canvas.window(beside) - part(canvas.prediction.probs(), beside)).abs().max() > 0.1


def test_mix_is_the_share_of_the_refiner():
    own, alone = some_prediction().probs(), painted().probs()
    torch.testing.assert_close(painted(0.0).probs(), own, rtol=0, atol=1e-4)
    torch.testing.assert_close(painted(0.3).probs(), mix_probs(own, alone, 0.3), rtol=0, atol=1e-3)


def test_overlapping_tiles_are_blended_by_their_weights():
    prediction = load_prediction(torch.zeros(2, 8, 112), (8, 112), "logits")
    canvas = Canvas(prediction, 16, 1.0)
    tiles = plan_tiles((8, 112), 64, 16)
    assert len(tiles) == 2
    plan = SlotPlan(torch.tensor([0, 1]), 2, other=False)
    values = (0.75, 0.25)
    for tile, value in zip(tiles, values, strict=True):
        canvas.add(tile, plan, torch.tensor([value, 1 - value])[:, None, None].expand(2, 8, 64))
    row = canvas.probs()[0, 4]
    assert (row[:48] == 0.75).all() and (row[64:] == 0.25).all() and (row.diff() <= 0).all()
    shares = [blend_window(tile, (8, 112), 16)[4] for tile in tiles]
    expected = (0.75 * shares[0][48:] + 0.25 * shares[1][:16]) / (shares[0][48:] + shares[1][:16])
    torch.testing.assert_close(row[48:64], expected)


def test_labels_and_uncertainty_are_those_of_the_probabilities():
    canvas = painted()
    answer, top = canvas.answers(), canvas.probs().topk(2, 0)
    labels, uncertainty = answer.labels, answer.uncertainty
    assert torch.equal(labels, top.indices[0]) and labels.dtype == torch.int64
    torch.testing.assert_close(uncertainty, 1 - (top.values[0] - top.values[1]), rtol=0, atol=1e-6)
    assert uncertainty.min() >= 0 and uncertainty.max() <= 1


def test_one_class_is_certain():
    canvas = Canvas(load_prediction(torch.zeros(5, 7, dtype=torch.int64), (5, 7)), 16, 1.0)
    answer = canvas.answers()
    assert (answer.labels == 0).all() and (answer.uncertainty == 0).all() and (canvas.probs() == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (WINDOW, WINDOW + 1), (2 * WINDOW + 5, 30)])
def test_windows_cover_the_image_once(size):
    cover = torch.zeros(size)
    for window in Canvas(some_prediction(2, size), 16, 1.0).windows():
        cover[window.slices_in(Tile(0, 0, *size))] += 1
        assert max(window.height, window.width) <= WINDOW
    assert (cover == 1).all()


def test_nothing_is_recorded_unless_asked():
    canvas = painted()
    assert canvas.recorder(Tile(0, 0, 64, 64), SlotPlan(torch.tensor([0, 1]), 6, other=True)) is None
    assert canvas.trajectory() == []


def test_recorded_steps_show_classes_and_leave_other_and_void_alone():
    labels = torch.full((8, 8), 3)
    labels[0], labels[-1] = 255, 4
    prediction = load_prediction(labels, (8, 8), num_classes=6)
    canvas = Canvas(prediction, 16, 1.0, recorded_steps=2)
    record = canvas.recorder(Tile(0, 0, 8, 8), SlotPlan(torch.tensor([5, 3]), 6, other=True))
    assert record is not None
    logits = torch.full((1, 3, 4, 4), -9.0)
    logits[:, 0, :, :2], logits[:, 2, :, 2:] = 9.0, 9.0
    record(Step(1, 19, torch.zeros(1, 4, 4, dtype=torch.int64), logits))
    first, second = canvas.trajectory()
    assert torch.equal(first, labels)
    expected = labels.clone()
    expected[1:, :4] = 5
    assert torch.equal(second, expected)


def test_mixing_is_a_log_linear_pool():
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
    expected = (p * q) ** 0.5 / ((p * q) ** 0.5).sum()
    torch.testing.assert_close(mix_probs(p, q, 0.5), expected)
    torch.testing.assert_close(mix_probs(p, q, 0.0), p)
    torch.testing.assert_close(mix_probs(p, q, 0.25), p**0.75 * q**0.25 / (p**0.75 * q**0.25).sum())
    torch.testing.assert_close(mix_probs(p, q, 1.0), q)


def test_mixing_vetoes_no_class_for_good():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(mix_probs(p, q, 0.5), torch.tensor([0.5, 0.5]))


def label_canvas(shift: int, mix: float = 1.0) -> Canvas:
    """A square label map that the refiner wants `shift` pixels further right."""
    labels = torch.zeros(64, 64, dtype=torch.int64)
    labels[16:48, 16:48] = 1
    known = load_prediction(labels, (64, 64), "labels", 255, 2)
    wanted = F.one_hot(labels.roll(shift, 1), 2).permute(2, 0, 1) * 0.98 + 0.01
    canvas = Canvas(known, 0, mix)
    canvas.add(Tile(0, 0, 64, 64), plan_slots(torch.ones(2), torch.ones(2), 4), wanted)
    return canvas


def test_displacement_is_counted_per_outline_pixel():
    # two upright sides of 32 px move, the outline has about 4 x 32 pixels
    assert label_canvas(0).displacement() == 0
    assert label_canvas(4).displacement() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("shift", "low", "high"), [(0, 0.5, 0.5), (1, 0.5, 0.55), (4, 1.0, 1.0)])
def test_an_exact_label_map_is_taken_at_its_word_and_a_rough_one_is_not(shift, low, high):
    canvas = label_canvas(shift)
    canvas.trust_exact_labels()
    assert low <= canvas.mix <= high
    before = label_canvas(shift, 0.3)
    before.trust_exact_labels()
    assert before.mix == 0.3


def test_void_has_no_say_in_the_displacement():
    labels = torch.zeros(64, 64, dtype=torch.int64)
    labels[:, 32:] = 255
    known = load_prediction(labels, (64, 64), "labels", 255, 2)
    canvas = Canvas(known, 0, 1.0)
    wanted = torch.stack([torch.zeros(64, 64), torch.ones(64, 64)]) * 0.98 + 0.01
    wanted[:, :, :32] = wanted[:, :, :32].flip(0)
    canvas.add(Tile(0, 0, 64, 64), plan_slots(torch.ones(2), torch.ones(2), 4), wanted)
    assert canvas.displacement() == 0


@pytest.mark.parametrize("classes", [3, 6, 30])
def test_a_hedge_changes_no_label(classes):
    """With few classes, with more, and with so many that those of no importance are put together."""
    prediction = some_prediction(classes)
    plain, hedged = Canvas(prediction, 16, 0.75), Canvas(prediction, 16, 0.75, hedge=0.4)
    generator = torch.Generator().manual_seed(1)
    for tile in plan_tiles(SIZE, 64, 16):
        plan, slots = plan_in(prediction, tile, 4)
        answer = (4 * torch.randn(slots.shape, generator=generator)).softmax(0)
        plain.add(tile, plan, answer)
        hedged.add(tile, plan, answer)
    one, other = plain.answers(), hedged.answers()
    assert torch.equal(one.labels, other.labels)
    probs = hedged.probs()
    torch.testing.assert_close(probs.sum(0), torch.ones(SIZE), rtol=0, atol=1e-5)
    assert torch.equal(probs.argmax(0), other.labels)
    mixed = torch.lerp(plain.probs(), prediction.probs(), 0.4)
    # elsewhere than in order the probabilities of a pixel are the mixed ones
    torch.testing.assert_close(probs.sort(0).values, mixed.sort(0).values, rtol=0, atol=1e-5)
    assert not torch.equal(mixed.argmax(0), other.labels)
    top = probs.topk(2, 0).values
    torch.testing.assert_close(other.uncertainty, 1 - (top[0] - top[1]), rtol=0, atol=1e-5)
