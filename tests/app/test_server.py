"""The page's server, asked without a browser."""

import http.client
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ddps.app.page import build_page
from ddps.app.server import POLICY, SESSIONS, serve
from ddps.app.uploads import Limits
from ddps.errors import InputError

from ..long.page_visitor import Visitor

gradio = pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")
LIMITS = Limits(file_bytes=50_000)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Gradio keeps uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def page(tiny_refiner, cache):
    built = build_page(tiny_refiner, [], LIMITS)
    yield built
    built.close(verbose=False)


def upload(address: str, content: bytes) -> list[str]:
    """Sends one file as the page does; paths on the server."""
    body = io.BytesIO()
    body.write(b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n')
    body.write(b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--x--\r\n")
    request = urllib.request.Request(f"{address}gradio_api/upload", body.getvalue())
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_it_listens_to_this_machine_only_and_says_what_browsers_may_ask(page):
    address = serve(page, limits=LIMITS)
    assert urlsplit(address).hostname == "127.0.0.1" and page.server.config.host == "127.0.0.1"
    assert page.share is False and page.share_url is None
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert answer.headers["Content-Security-Policy"] == POLICY
        text = answer.read().decode()
    assert "Sharper masks" in text and "fonts.googleapis" not in text and '"analytics_enabled":false' in text
    with urllib.request.urlopen(f"{address}favicon.ico", timeout=60) as answer:
        assert b"<svg" in answer.read()


def test_a_file_of_too_many_bytes_is_cut_off(page):
    address = serve(page, limits=LIMITS)
    with pytest.raises(urllib.error.HTTPError) as caught:
        upload(address, bytes(LIMITS.file_bytes + 1))
    assert caught.value.code == http.client.REQUEST_ENTITY_TOO_LARGE
    caught.value.close()


def test_uploads_are_gone_when_it_ends(page, cache):
    [path] = upload(serve(page, limits=LIMITS), bytes(1000))
    assert Path(path).read_bytes() == bytes(1000) and Path(path).is_relative_to(cache)
    page.close(verbose=False)
    assert [found for found in cache.rglob("*") if found.is_file()] == []


def test_only_the_latest_answers_are_kept(page, files):
    visitor = Visitor(serve(page, limits=LIMITS))
    kept = []
    for seed in range(4):
        answer = visitor.refine(files.photo.read_bytes(), files.label_map.read_bytes(), seed)
        assert answer.fine, answer.text
        kept.append(len(str(page.state_holder[visitor.session].config_values)))
    assert kept[-1] < 1.2 * kept[0] and page.state_session_capacity == SESSIONS


def test_an_address_of_another_machine_is_refused(page):
    with pytest.raises(InputError, match="192.0.2.1"):
        serve(page, host="192.0.2.1", limits=LIMITS)


def test_without_gradio_it_says_what_to_install(tiny_refiner, monkeypatch):
    monkeypatch.setattr("ddps.app.page.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ddps\[app\]"):
        build_page(tiny_refiner)
