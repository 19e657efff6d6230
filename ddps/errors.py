"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Bad input, said in one line: what was expected, what came, what to do about it."""

    def __init__(self, expected: str, got: str, hint: str):
        self.expected, self.got, self.hint = expected, got, hint
        super().__init__(f"expected {expected}; got {got}; try {hint}")


def one_line(error: Exception) -> str:
    """What a library says, cut to one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
