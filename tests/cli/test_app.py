import socket
from importlib.util import find_spec

import pytest

from ddps.cli import app, demo
from ddps.inputs import load_image


def test_without_gradio_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    outcome = run("app")
    assert outcome.is_bad_input() and "ddps[app]" in outcome.err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_refused(run, port):
    assert run("app", "--port", port).is_bad_input()


def test_a_port_that_is_taken_is_refused(run, tiny_model_dir):
    pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run("app", "--model", tiny_model_dir, "--port", port)
    assert outcome.is_bad_input() and f"127.0.0.1:{port}" in outcome.err and "--port" in outcome.err


def test_examples_are_the_demos():
    pytest.importorskip("skimage", reason="the photos come with scikit-image: pip install '.[demo]'")
    examples = app.find_examples()
    assert [example.title for example in examples] == list(demo.PHOTOS)
    for example in examples:
        assert load_image(example.photo).shape[1:] == example.labels.shape
        assert example.labels.max() < len(example.names)


def test_without_the_photos_there_are_no_examples(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "skimage" else find_spec(name))
    assert app.find_examples() == []
