import argparse

import pytest

from ddps.cli.options import percentage, whole


def test_percentages():
    assert [percentage(text) for text in ("0", "2.5", "1e2")] == [0, 2.5, 100]
    for text in ("-1", "100.1", "nan", "inf", "x", "2 %"):
        with pytest.raises(argparse.ArgumentTypeError, match="percentage"):
            percentage(text)


def test_whole_numbers():
    assert whole(1, 3)("3") == 3
    for text in ("0", "4", "1.5", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            whole(1, 3)(text)
