import io
from types import SimpleNamespace

import pytest

from ddps import progress
from ddps.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    """Takes the place of stderr, for `Progress` only: pytest itself exchanges the real one."""
    screen = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
    return screen


def run(bar: Progress, items: int) -> None:
    for _ in range(items):
        bar.advance()


def test_nothing_without_a_terminal(capsys):
    bar = Progress(3, "tiles")
    run(bar, 3)
    assert capsys.readouterr() == ("", "") and bar.done == 3


def test_a_bar_on_a_terminal_that_ends_with_a_new_line(capsys, terminal):
    run(Progress(3, "tiles"), 3)
    drawn = terminal.getvalue()
    assert drawn.startswith("\rtiles [") and "#" * 30 in drawn and "3/3" in drawn
    assert drawn.endswith("\n") and drawn.count("\n") == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("total", "shown"), [(3, False), (1, True), (0, True)])
def test_nothing_when_not_wanted_or_not_worth_it(total, shown, terminal):
    run(Progress(total, "tiles", shown), total)
    assert terminal.getvalue() == ""


def test_redrawn_no_more_than_ten_times_a_second(terminal, monkeypatch):
    clock = iter(1000 + 0.01 * k for k in range(1000))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    run(Progress(100, "images"), 50)
    assert 2 <= terminal.getvalue().count("\r") <= 6
