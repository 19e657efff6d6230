import numpy as np
import pytest

from ddps.errors import InputError
from ddps.review import MOST_MOVES, Move, Row, measure, rank

VOID = 255


def row(name, changed, uncertainty=0.0):
    return Row(name, changed, uncertainty, (), 0.1)


@pytest.fixture
def labels():
    before = np.zeros((10, 10), dtype=np.int64)
    before[:, 5:], before[0] = 3, VOID
    return before


class TestMeasure:
    def test_void_counts_for_nothing(self, labels):
        after = labels.copy()
        after[1:4, :5] = 3  # 15 pixels of the 90 that are labelled
        after[5, 9] = 7
        uncertainty = np.where(labels == VOID, 1, 0.25).astype(np.float32)
        found = measure("a", labels, after, labels == VOID, uncertainty, 0.5)
        assert found.changed == pytest.approx(100 * 16 / 90) and found.uncertainty == pytest.approx(25)
        assert found.moves == (Move(0, 3, 100 * 15 / 90), Move(3, 7, 100 * 1 / 90))

    def test_nothing_changed(self, labels):
        found = measure("a", labels, labels, labels == VOID, np.zeros((10, 10), np.float32), 0.5)
        assert found.changed == 0 and found.moves == ()

    def test_nothing_to_compare_with(self, labels):
        uncertainty = np.ones((10, 10), np.float32)
        alone = measure("a", None, labels, labels == VOID, uncertainty, 0.5)
        assert alone.changed is None and alone.uncertainty == 100
        void = np.full((10, 10), VOID)
        empty = measure("a", void, void, void == VOID, uncertainty, 0.5)
        assert empty.changed is None and empty.uncertainty is None

    def test_the_largest_moves_only(self):
        before = np.zeros((1, 100), dtype=np.int64)
        after = np.repeat(np.arange(10), 10)[None]
        moves = measure("a", before, after, before < 0, np.zeros(before.shape, np.float32), 0).moves
        assert [move.after for move in moves] == list(range(1, MOST_MOVES + 1))


def test_rows_come_back_from_their_values():
    one = Row("a", 1.5, None, (Move(0, 40000, 1.5),), 0.25, True)
    values = one.as_dict()
    assert Row.from_dict(values) == one
    for bad in (None, [], {**values, "changed": "x"}, {key: v for key, v in values.items() if key != "name"}):
        with pytest.raises(InputError):
            Row.from_dict(bad)


def test_rank_is_by_change_then_uncertainty_then_name():
    rows = [row("d", 2), row("c", 5, 1), row("b", 5, 3), row("a", 5, 3), row("e", 1.9), row("f", None, 90)]
    assert [one.name for one in rank(rows, 2)] == ["a", "b", "c", "d"]
    assert rank([], 0) == []
