import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ddps.app import markup
from ddps.app.uploads import Limits
from ddps.errors import InputError

PALETTE = ((255, 0, 0), (0, 0, 255), (0, 128, 0))
NASTY = '<img src=x onerror="alert(1)">'


class Balance(HTMLParser):
    """Fails on a tag that is closed before it is opened, or never."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(text: str) -> str:
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return text


def legend(before, after=None, names=("sky", "car"), bare=None):
    before = np.array(before)
    return checked(markup.legend(before, before if after is None else np.array(after), PALETTE, names, bare))


def test_the_legend_lists_what_either_mask_shows_the_largest_first():
    text = legend([[0, 0, 0, 2]], [[1, 1, 0, 0]])
    assert re.findall(r"<span>(.*?)</span><b>(.*?) %", text) == [("sky", "50.0"), ("car", "50.0"), ("class 2", "0.0")]
    assert "#ff0000" in text and "#0000ff" in text and "#008000" in text


def test_void_and_the_bare_class_have_no_colour_in_the_legend():
    text = legend([[0, 255]], bare=0)
    assert text.count('class="bare"') == 2 and "void" in text and "background:" not in text


def test_a_class_of_few_pixels_is_not_said_to_have_none():
    after = np.zeros((100, 100), dtype=int)
    after[0, 0] = 1
    assert "&lt;0.1 %" in legend(after)


def test_a_long_legend_ends():
    labels = np.arange(60)[None]
    text = checked(markup.legend(labels, labels, [(i, 0, 0) for i in range(60)], (), None))
    assert text.count("<i ") == markup.MOST_SWATCHES and f"and {60 - markup.MOST_SWATCHES} more classes" in text


def test_names_and_errors_are_text_whatever_they_hold():
    for text in (
        legend([[0, 1]], names=(NASTY, "b")),
        checked(markup.error(InputError(NASTY, NASTY, NASTY))),
        checked(markup.facts([(NASTY, NASTY)])),
    ):
        assert "<img" not in text and "&lt;img" in text


def test_an_error_is_a_sentence_that_is_announced():
    text = markup.error(InputError("an image", "a cat", "a photo"))
    assert 'role="alert"' in text and "Expected an image, got a cat. Try a photo." in text


@pytest.mark.parametrize("steps", [0, 3])
def test_all_pictures_are_in_the_page_itself(steps):
    picture = Image.new("RGB", (8, 6))
    strip = [(f"step {i}", picture) for i in range(steps)]
    text = checked(markup.comparison(picture, picture, "", "")) + checked(
        markup.details([(picture, picture)], picture, picture, strip)
    )
    assert text.count("<img") == 2 + 2 + 2 + steps
    assert text.count('src="data:image/jpeg') == text.count("src=") == text.count("<img")
    assert text.count(' alt="') == text.count("<img") and ("step by step" in text) == bool(steps)


def test_the_rest_is_whole():
    picture = Image.new("RGB", (8, 6))
    for text in (markup.header(), markup.empty(), markup.half(True), markup.half(False), markup.label("a")):
        checked(text)
    checked(markup.preview(picture, "", ""))
    assert "8.3 megapixels" in checked(markup.footer(Limits(), "cpu")) and "CPU" in markup.footer(Limits(), "cpu")
