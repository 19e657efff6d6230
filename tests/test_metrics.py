import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.errors import InputError
from ddps.metrics import BoundaryIoU, ConfusionMatrix, SegmentationMetrics, band_width, boundary_band

VOID = 255


def erode_once(mask):
    """Erosion by a 3x3 square; outside the image counts as outside the mask."""
    padded = np.pad(mask, 1, constant_values=False)
    height, width = mask.shape
    return np.all([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def region(mask, distance):
    eroded = mask
    for _ in range(distance):
        eroded = erode_once(eroded)
    return mask & ~eroded


def brute_force_boundary_iou(pairs, num_classes):
    intersection, union = np.zeros(num_classes), np.zeros(num_classes)
    for prediction, target in pairs:
        distance = max(1, round(0.02 * math.hypot(*target.shape)))
        for k in range(num_classes):
            ours = region(prediction == k, distance) & (target != VOID)
            theirs = region(target == k, distance) & (target != VOID)
            intersection[k] += (ours & theirs).sum()
            union[k] += (ours | theirs).sum()
    with np.errstate(invalid="ignore"):
        return 100 * intersection / union


def random_pair(seed, height, width, num_classes):
    """Blobs, so that masks have an inside, with wrong blobs and void in the target."""
    rng = np.random.default_rng(seed)
    side = rng.integers(1, 12)
    small = rng.integers(0, num_classes, (height // side + 1, width // side + 1))
    target = np.kron(small, np.ones((side, side), int))[:height, :width]
    prediction = np.roll(target, rng.integers(0, 4), axis=1)
    target = np.where(rng.random(target.shape) < 0.05, VOID, target)
    return prediction, target


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 53), (90, 120), (150, 131)])
@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_boundary_iou_is_the_brute_force_definition(shape, num_classes):
    pairs = [random_pair(seed, *shape, num_classes) for seed in range(3)]
    metric = BoundaryIoU(num_classes + 2)
    for pair in pairs:
        metric.update(*pair)
    expected = brute_force_boundary_iou(pairs, num_classes + 2)
    np.testing.assert_allclose(metric.per_class_iou, expected)
    assert np.isnan(expected[-1])
    assert metric.miou == pytest.approx(np.nanmean(expected), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_one_pass_band_equals_erosion_of_every_class(seed, height, width, distance):
    labels, _ = random_pair(seed, height, width, 3)
    expected = np.zeros((height, width), bool)
    for k in range(3):
        expected |= region(labels == k, distance)
    np.testing.assert_array_equal(boundary_band(labels, distance), expected)


def test_band_width_is_two_percent_of_the_diagonal():
    assert band_width(360, 480) == 12
    assert band_width(1, 1) == 1
    assert band_width(1024, 2048) == 46


def test_mean_iou_by_hand():
    metric = ConfusionMatrix(4)
    metric.update(np.array([[0, 0, 1], [1, 1, 1]]), np.array([[0, 1, 1], [1, VOID, 2]]))
    # class 0: 1 of 2; class 1: 2 of 4; class 2: 0 of 1; class 3 occurs nowhere
    np.testing.assert_allclose(metric.per_class_iou, [50, 50, 0, np.nan])
    assert metric.miou == pytest.approx(100 / 3)
    assert metric.accuracy == pytest.approx(60)


def test_confusion_is_summed_over_the_data_set():
    pairs = [random_pair(seed, 30, 40, 4) for seed in range(3)]
    metric = ConfusionMatrix(4)
    for pair in pairs:
        metric.update(*pair)
    prediction, target = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    keep = target != VOID
    for k in range(4):
        both = (prediction == k) & (target == k) & keep
        either = ((prediction == k) | (target == k)) & keep
        assert metric.per_class_iou[k] == pytest.approx(100 * both.sum() / either.sum())


def test_perfect_prediction_is_100_and_nothing_seen_is_nan():
    metric = SegmentationMetrics(3)
    assert all(math.isnan(value) for value in metric.as_dict().values())
    _, target = random_pair(0, 50, 60, 3)
    metric.update(np.where(target == VOID, 0, target), target)
    assert metric.as_dict()["miou"] == metric.as_dict()["accuracy"] == 100
    metric = SegmentationMetrics(3)
    target = random_pair(0, 50, 60, 3)[0]
    metric.update(target, target)
    assert metric.as_dict() == {"miou": 100, "mbiou": 100, "accuracy": 100}


def test_void_target_counts_for_nothing_and_void_prediction_as_wrong():
    target = np.array([[0, 0, VOID, VOID]])
    metric = SegmentationMetrics(2)
    metric.update(np.array([[0, VOID, 1, 0]]), target)
    np.testing.assert_allclose(metric.confusion.per_class_iou, [50, np.nan])
    assert metric.confusion.accuracy == 50
    np.testing.assert_allclose(metric.boundary.per_class_iou, [50, np.nan])


def test_a_class_can_be_void():
    metric = SegmentationMetrics(3, ignore_index=0)
    metric.update(np.array([[1, 2, 1]]), np.array([[1, 1, 0]]))
    np.testing.assert_allclose(metric.confusion.per_class_iou, [np.nan, 50, 0])


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, torch.uint8, torch.int64])
def test_every_integer_type_is_taken_and_left_as_it_is(kind):
    prediction, target = random_pair(1, 20, 20, 3)
    expected = SegmentationMetrics(3)
    expected.update(prediction, target)
    make = (lambda a: torch.tensor(a, dtype=kind)) if isinstance(kind, torch.dtype) else (lambda a: a.astype(kind))
    pair = make(prediction), make(target)
    metric = SegmentationMetrics(3)
    metric.update(*pair)
    assert metric.as_dict() == expected.as_dict()
    np.testing.assert_array_equal(np.asarray(pair[1]), target)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.array([[0, 7, 9]]), np.array([[0, 0, 0]]), "prediction with class ids 0 to 2 .* ids 7, 9"),
        (np.array([[0, 0, 0]]), np.array([[0, 3, -1]]), "target with class ids 0 to 2 .* ids -1, 3"),
        (np.array([[0, 0]]), np.array([[0, 0, 0]]), "resizing"),
        (np.array([[0.0, 0.5]]), np.array([[0, 0]]), "integer label map"),
        (np.zeros((1, 2, 2), int), np.zeros((2, 2), int), r"shape \(1, 2, 2\)"),
    ],
)
def test_bad_pairs_are_refused_and_leave_the_counts(prediction, target, message):
    metric = SegmentationMetrics(3)
    with pytest.raises(InputError, match=message):
        metric.update(prediction, target)
    assert metric.confusion.counts.sum() == metric.boundary.union.sum() == 0
    with pytest.raises(InputError, match="at least 1"):
        SegmentationMetrics(0)


def message_of(call):
    with pytest.raises(InputError) as raised:
        call()
    return str(raised.value)


def test_the_whole_messages():
    metric = SegmentationMetrics(3)
    good = np.zeros((2, 2), int)
    assert message_of(lambda: metric.update(good[:1], good)) == (
        "expected a prediction of the target's size (2, 2); got size (1, 2); "
        "try resizing the prediction to the mask's size (label maps by nearest neighbour)"
    )
    assert message_of(lambda: metric.update(good / 2, good)) == (
        "expected prediction as an integer label map (H, W); got float64 of shape (2, 2); try passing class ids"
    )
    for count, shown in (
        (1, "7"),
        (10, ", ".join(map(str, range(7, 17)))),
        (11, ", ".join(map(str, range(7, 17))) + " ..."),
    ):
        bad = np.arange(7, 7 + count)[None]
        assert message_of(lambda bad=bad: metric.update(np.zeros_like(bad), bad)) == (
            f"expected target with class ids 0 to 2 or void 255; got ids {shown}; "
            "try mapping the labels to these classes, or giving the right number of classes"
        )
    assert message_of(lambda: ConfusionMatrix(0)) == (
        "expected num_classes of at least 1; got 0; try the number of classes of the data set"
    )


def test_one_class_is_enough():
    metric = SegmentationMetrics(1)
    metric.update(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert metric.as_dict() == {"miou": 100, "mbiou": 100, "accuracy": 100}


def test_what_is_counted_are_whole_numbers():
    metric = SegmentationMetrics(3)
    metric.update(*random_pair(0, 20, 30, 3))
    for counts in (metric.confusion.counts, metric.boundary.intersection, metric.boundary.union):
        assert counts.dtype == np.int64


def test_void_is_the_same_for_both():
    metric = SegmentationMetrics(3, 7)
    assert metric.confusion.ignore_index == metric.boundary.ignore_index == 7
    assert SegmentationMetrics(3).boundary.ignore_index == SegmentationMetrics(3).confusion.ignore_index == VOID


def test_the_band_follows_the_diagonal_and_the_ratio():
    prediction, target = np.zeros((200, 20), int), np.zeros((200, 20), int)
    prediction[:100], target[:103] = 1, 1
    counts = []
    for ratio in (0.005, 0.02):
        metric = BoundaryIoU(2, ratio=ratio)
        metric.update(prediction, target)
        distance = round(ratio * math.hypot(200, 20))
        ours, theirs = (region(mask == 1, distance) for mask in (prediction, target))
        assert metric.union[1] == (ours | theirs).sum() and metric.intersection[1] == (ours & theirs).sum()
        counts.append(int(metric.union[1]))
    assert counts[0] < counts[1]


@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3), (3, 3)])
def test_a_square_as_large_as_the_image_has_one_pixel_inside(height, width):
    band = boundary_band(np.zeros((height, width), int), 1)
    assert not band[1:-1, 1:-1].any() and band.sum() == height * width - (height - 2) * (width - 2)


def test_adding_two_halves_is_counting_all():
    pairs = [random_pair(seed, 30, 40, 4) for seed in range(4)]
    whole, halves = SegmentationMetrics(4), [SegmentationMetrics(4), SegmentationMetrics(4)]
    for index, pair in enumerate(pairs):
        whole.update(*pair)
        halves[index % 2].update(*pair)
    halves[0].add(halves[1])
    assert halves[0].as_dict() == whole.as_dict()
    np.testing.assert_array_equal(halves[0].confusion.counts, whole.confusion.counts)
    np.testing.assert_array_equal(halves[0].boundary.union, whole.boundary.union)


@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (1, 1)])
def test_an_image_narrower_than_the_square_is_all_band(shape):
    assert boundary_band(np.zeros(shape, int), 1).all()
