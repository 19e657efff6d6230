"""The one error that a user's input can cause."""

import operator


class InputError(ValueError):
    """Bad input, said in one line: what was expected, what came, what to do about it."""

    def __init__(self, expected: str, got: str, hint: str):
        self.expected, self.got, self.hint = expected, got, hint
        super().__init__(printable(f"expected {expected}; got {got}; try {hint}"))


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """A whole number of any library as Python's.

    Raises:
        InputError: something else, a boolean, or not from `low` to `high`.
    """
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise InputError(f"{name} as a whole number from {low} to {high}", repr(value)[:60], "a number within")
    return number


def printable(text: str) -> str:
    """One line that is safe on a terminal: files bring names that hold line ends, escape codes, or no text at all."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def one_line(error: Exception) -> str:
    """What a library says, cut to one line; its kind where it says nothing."""
    return printable(" ".join(str(error).split()))[:200] or type(error).__name__
