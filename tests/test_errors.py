import numpy as np
import pytest
import torch

from ddps.errors import InputError, one_line, whole_number


def test_expected_got_try():
    error = InputError("this", "that", "these")
    assert str(error) == "expected this; got that; try these"
    assert (error.expected, error.got, error.hint) == ("this", "that", "these")


@pytest.mark.parametrize(
    ("got", "shown"),
    [
        ("a\nb", "a b"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\udcff", r"\udcff"),
        ("a\u2028b", "a b"),
        ("Übung é", "Übung é"),
    ],
)
def test_what_files_say_cannot_break_the_line_or_drive_the_terminal(got, shown):
    assert f"got {shown}; try" in str(InputError("a name", got, "another"))
    assert str(InputError("a name", got, "another")).isprintable()
    assert one_line(ValueError(got)) == shown


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_library(value):
    found = whole_number("n", value, 1, 3)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [0, 4, True, 2.0, "2", None, np.zeros(2), torch.zeros(2), object(), 2**80])
def test_other_numbers_are_refused(value):
    with pytest.raises(InputError, match="n as a whole number from 1 to 3"):
        whole_number("n", value, 1, 3)
