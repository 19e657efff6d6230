"""The page in headless Chromium: upload, refine, compare, download, errors; the queue; nobody else is asked."""

import copy
import threading

import numpy as np
import pytest
from PIL import Image

from ddps.app.examples import Example
from ddps.app.uploads import Limits

from .browser import PATIENCE, Visitor, chromium, served
from .conftest import make_files

NAMES = ("background", "box", "rug")
NASTY = "<img src=x onerror=document.title='taken'>"
LIMITS = Limits(pixels=20_000, values=100_000, file_bytes=1 << 20)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tiny_refiner, tmp_path_factory):
    files = make_files(tmp_path_factory.mktemp("example"))
    with served(tiny_refiner, [Example("room", files.photo, files.labels, NAMES)], LIMITS) as found:
        yield found


@pytest.fixture
def visit(browser, address):
    visitors = []

    def come(**window):
        visitors.append(Visitor(browser, address, **window))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.close()


def test_upload_refine_compare_download(visit, files, tiny_refiner):
    visitor = visit()
    visitor.upload(image=files.photo)
    visitor.tab.get_by_text("Now add its prediction").wait_for()
    visitor.upload(prediction=files.logits)
    visitor.tab.get_by_text("Ready to refine").wait_for()
    visitor.refine()
    direct = tiny_refiner.refine(files.photo, files.logits)

    with Image.open(visitor.download("mask", files.folder)) as mask:
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), direct.labels)
    with np.load(visitor.download("probs", files.folder)) as arrays:
        assert np.array_equal(arrays["probs"], direct.probs)

    before = visitor.tab.locator(".ddps-compare > .before")
    shown = []
    for key in ("Home", "End"):
        visitor.tab.get_by_label("compare before and after").press(key)
        shown.append(before.evaluate("e => getComputedStyle(e).clipPath"))
    assert shown == ["inset(0px 100% 0px 0px)", "inset(0px 0% 0px 0px)"]
    captions = visitor.tab.locator(".ddps-strip figcaption").all_inner_texts()
    assert captions == ["your mask", "step 1", "step 2", "answer"]
    facts = visitor.tab.locator(".ddps-facts").inner_text()
    assert f"{100 * direct.changed.mean():.1f} %" in facts and "to refine" in facts and "96 × 64" in facts
    assert visitor.problems == []


def test_dragging_moves_the_line(visit):
    visitor = visit()
    visitor.tab.locator("#ddps-examples .thumbnail-item").click()
    visitor.wait_for_answer()
    figure = visitor.tab.locator(".ddps-compare")
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    middle = box["y"] + box["height"] / 2
    visitor.tab.mouse.move(box["x"] + box["width"] / 2, middle)
    visitor.tab.mouse.down()
    visitor.tab.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    visitor.tab.mouse.up()
    assert abs(float(figure.evaluate("e => e.style.getPropertyValue('--x')")) - 0.25) < 0.02


def test_an_example_is_refined_at_a_click(visit):
    visitor = visit()
    visitor.tab.locator("#ddps-examples .thumbnail-item").click()
    visitor.wait_for_answer()
    names = visitor.tab.locator(".ddps-legend span").all_inner_texts()
    assert sorted(names) == sorted(NAMES)
    assert "room_mask" in visitor.tab.locator("#ddps-prediction").inner_text()


def test_steps_sampler_and_seed_reach_the_refiner(visit, files, tiny_refiner):
    visitor = visit()
    visitor.upload(files.photo, files.label_map)
    visitor.tab.get_by_text("Ready to refine").wait_for()
    visitor.tab.locator("#ddps-steps input[type=number]").fill("5")
    visitor.tab.locator("#ddps-sampler").get_by_text("posterior", exact=True).click()
    visitor.tab.locator("#ddps-seed input").fill("7")
    visitor.refine()
    asked = tiny_refiner.refine(files.photo, files.label_map, steps=5, sampler="posterior", seed=7)
    default = tiny_refiner.refine(files.photo, files.label_map)
    assert not np.array_equal(asked.labels, default.labels)
    with Image.open(visitor.download("mask", files.folder)) as mask:
        assert np.array_equal(np.asarray(mask), asked.labels)
    assert visitor.tab.locator(".ddps-strip figure").count() == 7


def test_errors_are_a_sentence_and_the_page_goes_on(visit, files):
    (files.folder / "cut.png").write_bytes(files.photo.read_bytes()[:-2000])
    Image.new("RGB", (200, 101)).save(files.folder / "big.png")
    np.save(files.folder / "open.npy", np.full((3, 16, 24), 0.4, np.float32))
    visitor = visit()
    visitor.tab.locator("#ddps-refine").click()
    sentences = [visitor.error("an image and its prediction")]
    visitor.upload(files.photo, files.folder / "open.npy")
    sentences.append(visitor.error("values that tell logits from probabilities"))
    visitor.upload(image=files.folder / "cut.png")
    sentences.append(visitor.error("whole, readable file"))
    visitor.upload(image=files.folder / "big.png")
    sentences.append(visitor.error("megapixels"))
    visitor.tab.locator("#ddps-refine").click()
    visitor.tab.locator("#ddps-refine", has_text="Refine").wait_for()
    assert visitor.tab.locator("#ddps-downloads").is_hidden()
    for sentence in sentences:
        assert "Try " in sentence and "/" not in sentence and "\n" not in sentence
    visitor.upload(files.photo, files.label_map)
    visitor.tab.get_by_text("Ready to refine").wait_for()
    visitor.refine()


def test_a_file_of_too_many_bytes_is_not_taken(visit, files):
    (files.folder / "large.npy").write_bytes(bytes(LIMITS.file_bytes + 1))
    visitor = visit()
    field = visitor.tab.locator("#ddps-prediction")
    field.locator("input[type=file]").set_input_files(files.folder / "large.npy")
    visitor.tab.get_by_text("exceed").first.wait_for()
    assert "Drop File Here" in field.inner_text()


def test_class_names_are_text_whatever_they_hold(visit, files):
    visitor = visit()
    visitor.upload(files.photo, files.label_map)
    visitor.tab.get_by_text("About the prediction").click()
    visitor.tab.locator("#ddps-names textarea, #ddps-names input").fill(f"{NASTY}, box, rug")
    visitor.tab.get_by_text("Ready to refine").wait_for()
    visitor.refine()
    assert visitor.tab.locator(".ddps-legend span", has_text=NASTY).count() == 1
    assert visitor.tab.title() == "ddps: sharper masks"


def test_no_other_server_is_asked(visit, address):
    visitor = visit()
    visitor.tab.locator("#ddps-examples .thumbnail-item").click()
    visitor.wait_for_answer()
    assert [url for url in visitor.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert len(visitor.requests) > 10 and address.startswith("http://127.0.0.1:")
    assert "default-src 'self'" in visitor.response.headers["content-security-policy"]
    blocked = visitor.tab.evaluate("fetch('http://localhost:9/').then(() => '', error => String(error))")
    assert blocked and any("Content Security Policy" in problem for problem in visitor.problems)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(visit, width, scheme):
    visitor = visit(width=width, scheme=scheme)
    assert visitor.overflow() <= 0
    visitor.tab.locator("#ddps-examples .thumbnail-item").click()
    visitor.wait_for_answer()
    assert visitor.overflow() <= 0
    for label in visitor.tab.locator(".ddps-legend span, .ddps-facts dd, .ddps-facts dt").all():
        assert label.evaluate("e => e.scrollWidth <= e.clientWidth + 1 || getComputedStyle(e).display === 'inline'")
    dark = visitor.tab.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")


def test_who_finds_the_queue_full_is_told_so(browser, files, tiny_refiner):
    slow, started, go_on = copy.copy(tiny_refiner), threading.Semaphore(0), threading.Event()

    def refine(*arguments, **options):
        started.release()
        assert go_on.wait(PATIENCE / 1000)
        return tiny_refiner.refine(*arguments, **options)

    slow.refine = refine
    with served(slow, [], LIMITS, queue_size=1) as address:
        visitors = []
        for _ in range(3):
            visitor = Visitor(browser, address)
            visitors.append(visitor)
            visitor.upload(files.photo, files.label_map)
            visitor.tab.get_by_text("Ready to refine").wait_for()
        first, second, third = visitors
        first.tab.locator("#ddps-refine").click()
        assert started.acquire(timeout=PATIENCE / 1000)
        second.tab.locator("#ddps-refine").click()
        second.tab.get_by_text("queue").first.wait_for()
        third.tab.locator("#ddps-refine").click()
        third.tab.get_by_text("currently busy").first.wait_for()
        assert not started.acquire(blocking=False)  # one at a time
        go_on.set()
        first.wait_for_answer()
        second.wait_for_answer()
        third.refine()  # there is room again
        for visitor in visitors:
            visitor.close()
