"""What the page does, without a page: whoever asks, from whichever thread."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddps.app import events
from ddps.app.events import LOOKS, Events
from ddps.app.uploads import Limits
from ddps.out_of_memory import OutOfMemoryError

pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")


@pytest.fixture
def made(tiny_refiner):
    return Events(tiny_refiner, Limits(), [], tempfile.TemporaryDirectory(prefix="ddps-app-"))


def about(files) -> tuple[object, ...]:
    return str(files.photo), str(files.label_map), "auto", 255, ""


def test_few_threads_do_the_work_whoever_asks(made, files, monkeypatch):
    """What a thread has held for large pictures it keeps, so there must not be more and more of them."""
    threads: dict[str, set[int]] = {"refine_upload": set(), "show_upload": set()}

    def watched(name: str):
        original = getattr(events, name)

        def call(*args):
            threads[name].add(threading.get_ident())
            return original(*args)

        monkeypatch.setattr(events, name, call)

    watched("refine_upload"), watched("show_upload")
    for _ in range(3):  # every pool has threads of its own
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: made.preview(*about(files)), range(4)))
            answers = list(pool.map(lambda _: list(made.refine(*about(files), 2, None, 0)), range(2)))
            assert all(len(steps) == 3 for steps in answers)
    assert len(threads["refine_upload"]) == 1 and len(threads["show_upload"]) <= 1 + LOOKS
    assert threading.get_ident() not in threads["refine_upload"] | threads["show_upload"]


def test_an_error_in_a_thread_is_told_on_the_page(made, files, monkeypatch):
    first, *_ = list(made.refine(str(files.photo), str(files.photo), "auto", 255, "", 2, None, 0))
    assert "ddps-error" in first[0] and "Refining" not in str(first)

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(events, "refine_upload", exhausted)
    *_, last = made.refine(*about(files), 2, None, 0)
    assert "ddps-error" in last[0] and "memory" in last[0]
    with pytest.raises(OutOfMemoryError):
        made._answer(None, None)
    monkeypatch.undo()
    *_, last = made.refine(*about(files), 2, None, 0)
    assert "ddps-error" not in last[0]
