import numpy as np
import pytest

from ddps.calibration import Calibration
from ddps.calibration_plot import draw_calibration


def counted(errors: float) -> Calibration:
    random = np.random.default_rng(0)
    target = np.zeros((40, 40), dtype=np.int64)
    labels = (random.random((40, 40)) < errors).astype(np.int64)
    confidence = random.random((40, 40))
    found = Calibration()
    found.update(labels, confidence, 1 - confidence, target)
    return found


def colours(picture) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3)}


def test_every_answer_gets_its_colour_and_every_input_a_row():
    one = draw_calibration([("set", {"segmentor": counted(0.2)})])
    two = draw_calibration([("set", {"segmentor": counted(0.2), "refined": counted(0.1)})])
    assert (213, 94, 0) in colours(one) and (0, 114, 178) not in colours(one)
    assert {(213, 94, 0), (0, 114, 178)} <= colours(two)
    rows = draw_calibration([(name, {"segmentor": counted(0.2)}) for name in "abc"])
    assert rows.size == (one.width, 3 * one.height)


@pytest.mark.parametrize("errors", [0.0, 1.0])
def test_nothing_wrong_and_everything_wrong_are_drawn(errors):
    assert (213, 94, 0) in colours(draw_calibration([("set", {"segmentor": counted(errors)})]))


def test_nothing_counted_is_drawn():
    assert draw_calibration([("set", {"segmentor": Calibration()})]).width > 100
