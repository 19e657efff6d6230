"""Calibration figures against slow, plain definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.calibration import BINS, Calibration, ErrorDetection, Reliability
from ddps.errors import InputError


def some(seed: int = 0, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether answers are right: less often than they say."""
    random = np.random.default_rng(seed)
    confidence = random.random(count).astype(np.float32)
    return confidence, random.random(count) < confidence**2


def slow_ece(confidence: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for index in range(BINS):
        inside = (confidence >= index / BINS) & (confidence < (index + 1) / BINS)
        if index == BINS - 1:
            inside |= confidence == 1
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean(dtype=np.float64))
    return 100 * total


def slow_auroc(uncertainty: np.ndarray, right: np.ndarray) -> float:
    wrong, good = uncertainty[~right][:, None], uncertainty[right][None]
    return 100 * float(((wrong > good) + 0.5 * (wrong == good)).mean())


@pytest.mark.parametrize("seed", range(3))
def test_expected_calibration_error_is_its_definition(seed):
    confidence, right = some(seed)
    found = Reliability()
    found.update(confidence, right)
    assert found.ece == pytest.approx(slow_ece(confidence, right), abs=1e-4)
    assert found.mean_confidence == pytest.approx(100 * confidence.mean(dtype=np.float64))


def test_calibration_error_of_known_cases():
    right = np.array([True] * 7 + [False] * 3)
    for confidence, expected in ((0.7, 0.0), (1.0, 30.0), (0.5, 20.0)):
        found = Reliability()
        found.update(np.full(10, confidence), right)
        assert found.ece == pytest.approx(expected, abs=1e-4)
    assert found.points() == [(pytest.approx(0.5), pytest.approx(0.7), 1.0)]


# multiples of 1/64: no two fall together in a level
@given(st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(rows):
    uncertainty = np.array([number / 64 for number, _ in rows], dtype=np.float32)
    right = np.array([truth for _, truth in rows])
    found = ErrorDetection()
    found.update(uncertainty, right)
    if right.all() or not right.any():
        assert math.isnan(found.auroc)
    else:
        assert found.auroc == pytest.approx(slow_auroc(uncertainty, right))


def test_tiny_uncertainties_keep_their_order():
    found = ErrorDetection()
    found.update(np.array([0.0, 1e-7, 1e-6, 1e-5]), np.array([True, True, False, False]))
    assert found.auroc == 100
    upside_down = ErrorDetection()
    upside_down.update(np.array([-0.0, 1e-7, 1e-6, 1e-5]), np.array([False, False, True, True]))
    assert upside_down.auroc == 0


def test_error_against_coverage():
    uncertainty, right = np.arange(10) / 10, np.array([True] * 8 + [False] * 2)
    found = ErrorDetection()
    found.update(uncertainty, right)
    assert found.error == pytest.approx(20)
    assert found.error_at(0.8) == 0 and found.error_at(0.9) == pytest.approx(100 / 9)
    assert found.error_at(1.0) == pytest.approx(20)
    assert found.caught(0.1) == pytest.approx(50) and found.caught(0.2) == pytest.approx(100)
    assert found.caught(0) == pytest.approx(0) and found.caught(1) == pytest.approx(100)
    curve = found.curve()
    assert curve.coverage[-1] == 1 and curve.error[-1] == pytest.approx(20) and (curve.error[:80] == 0).all()
    assert curve.area == pytest.approx(curve.error.mean())


def test_equally_uncertain_pixels_are_taken_in_part():
    found = ErrorDetection()
    found.update(np.full(10, 0.3), np.array([True] * 6 + [False] * 4))
    assert found.auroc == 50
    assert found.error_at(0.5) == pytest.approx(40) and found.caught(0.5) == pytest.approx(50)


def maps(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels, target = random.integers(0, 3, (2, 9, 7))
    confidence, uncertainty = random.random((2, 9, 7)).astype(np.float32)
    return labels, confidence, uncertainty, target


def test_images_add_up_in_any_grouping():
    together, parts = Calibration(), [Calibration(), Calibration()]
    for seed in range(4):
        together.update(*maps(seed))
        parts[seed % 2].update(*maps(seed))
    parts[0].add(parts[1])
    assert parts[0].as_dict() == pytest.approx(together.as_dict())
    assert together.reliability.counts.sum() == 4 * 63


def test_void_counts_for_nothing():
    labels, confidence, uncertainty, target = maps(0)
    whole, less = Calibration(), Calibration()
    whole.update(labels[:5], confidence[:5], uncertainty[:5], target[:5])
    target[7:] = 255
    labels[5:7] = 255
    less.update(labels, confidence, uncertainty, target)
    assert less.as_dict() == pytest.approx(whole.as_dict())


def test_nothing_measured_is_nan():
    assert all(math.isnan(value) for value in Calibration().as_dict().values())


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(bad):
    for part in (Reliability(), ErrorDetection()):
        with pytest.raises(InputError, match="from 0 to 1"):
            part.update(np.array([0.5, bad]), np.array([True, False]))


def test_sizes_that_differ_are_refused():
    labels, confidence, uncertainty, target = maps(0)
    with pytest.raises(InputError, match="one size"):
        Calibration().update(labels, confidence[:4], uncertainty, target)
    with pytest.raises(InputError, match="bins"):
        Reliability(0)
