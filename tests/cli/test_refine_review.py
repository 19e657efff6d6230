"""`ddps refine --review`: which items are listed, and the page that shows them."""

import json
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

NASTY = "a&b <i>'x'#1?%20"


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("src", "href") if key in values]
        if tag == "article":
            self.names.append(values["data-name"])


@pytest.fixture
def refine(run, data_set, tiny_model_dir, tmp_path):
    """Runs `ddps refine` on the label maps, of which a's outlines are the roughest and c's are as they were."""
    rng = np.random.default_rng(0)
    for stem, share in (("a", 0.4), ("b", 0.1)):
        with Image.open(data_set.masks / f"{stem}.png") as mask:
            labels = np.array(mask)
        noise = rng.random(labels.shape) < share
        labels[noise] = rng.integers(0, 3, int(noise.sum()))
        Image.fromarray(labels).save(data_set.masks / f"{stem}.png")

    def command(*arguments):
        folders = (data_set.images, data_set.masks, "-o", tmp_path / "out")
        return run("refine", *folders, "--model", tiny_model_dir, "--device", "cpu", *arguments)

    return command


def page_of(out):
    return Links((out / "review.html").read_text(encoding="utf-8"))


def test_the_page_shows_what_was_listed(refine, tmp_path):
    out = tmp_path / "out"
    report = refine("--review", 0, "--json").json
    review = report["review"]
    assert review["listed"] == 3 and review["shown"] == 3 and review["page"] == str(out / "review.html")
    scores = [item["changed"] for item in review["items"]]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0
    page = page_of(out)
    assert page.names == [item["name"] for item in review["items"]]
    assert len(page.links) == 3 * 5
    for link in page.links:
        assert (out / unquote(link)).is_file(), link
    assert json.loads((out / "summary.json").read_text())["review"] == review


def test_the_threshold_and_the_most(refine, tmp_path):
    scores = [item["changed"] for item in refine("--review", 0, "--json").json["review"]["items"]]
    again = ("--resume", "--json")
    report = refine("--review", scores[1], *again).json["review"]
    assert report["listed"] == 2
    report = refine("--review", 0, "--review-most", 1, *again).json["review"]
    assert report["listed"] == 3 and report["shown"] == 1 and len(report["items"]) == 3
    assert len(list((tmp_path / "out" / "review").iterdir())) == 4
    report = refine("--review", 100, *again).json["review"]
    assert report["listed"] == 0 and page_of(tmp_path / "out").names == []


def test_a_page_of_a_resumed_run_shows_what_was_done_before(refine, tmp_path):
    assert refine().code == 0
    assert not (tmp_path / "out" / "review.html").exists()
    report = refine("--review", 0, "--resume", "--json").json
    assert report["refined"] == 0 and report["review"]["shown"] == 3


def test_the_moves_have_the_classes_names(refine, tmp_path):
    (tmp_path / "classes.json").write_text('{"num_classes": 3, "classes": ["sky", "<road>", "car"]}')
    items = refine("--review", 0, "--classes", tmp_path / "classes.json", "--json").json["review"]["items"]
    assert {move["before"] for move in items[0]["moves"]} <= {"sky", "<road>", "car"}
    html = (tmp_path / "out" / "review.html").read_text()
    assert "&lt;road&gt;" in html and "<road>" not in html


def test_names_that_would_break_a_page(refine, data_set, tmp_path):
    try:
        (data_set.images / "a.png").rename(data_set.images / f"{NASTY}.png")
    except OSError:
        pytest.skip("a file system that does not take such names")
    (data_set.masks / "a.png").rename(data_set.masks / f"{NASTY}.png")
    assert refine("--review", 0).code == 0
    page = page_of(tmp_path / "out")
    assert NASTY in page.names and all((tmp_path / "out" / unquote(link)).is_file() for link in page.links)


def test_probabilities_as_outputs(refine, tmp_path):
    report = refine("--review", 0, "--format", "npz", "--json").json
    assert report["review"]["shown"] == 3 and (tmp_path / "out" / "review" / "a.after.png").is_file()


def test_logits_are_compared_with_their_own_answer(run, data_set, tiny_model_dir, tmp_path):
    arguments = (data_set.images, data_set.predictions, "-o", tmp_path / "out", "--model", tiny_model_dir)
    report = run("refine", *arguments, "--device", "cpu", "--review", 0, "--json").json
    assert report["review"]["shown"] == 3 and report["review"]["items"][0]["changed"] > 0


def test_colours_are_the_files_own_where_they_tell_classes_apart(refine, data_set, tmp_path):
    colours = [(250, 250, 0), (0, 250, 250), (250, 0, 250)]
    for stem in "abc":
        with Image.open(data_set.masks / f"{stem}.png") as mask:
            picture = Image.fromarray(np.array(mask))
        picture.putpalette([channel for colour in colours for channel in colour])
        picture.save(data_set.masks / f"{stem}.png")
    assert refine("--review", 0).code == 0
    with Image.open(tmp_path / "out" / "review" / "c.after.png") as picture:
        assert {colour for _, colour in picture.getcolors()} <= set(colours)
    with Image.open(tmp_path / "out" / "c.png") as mask:
        assert mask.mode == "P" and bytes(mask.palette.palette)[:9] == bytes(sum(colours, ()))


def test_an_item_whose_image_has_gone(refine, data_set, tmp_path):
    assert refine().code == 0
    (data_set.images / "a.png").write_bytes(b"gone")
    assert refine("--review", 0, "--resume").code == 0
    assert "can no longer be read" in (tmp_path / "out" / "review.html").read_text()


def test_a_page_that_exists_is_kept(refine, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "review.html").write_text("precious")
    assert refine("--review", 0).is_bad_input()
    assert (tmp_path / "out" / "review.html").read_text() == "precious"


def test_options_that_would_do_nothing(refine, run, data_set, tmp_path):
    assert refine("--review-most", 3).is_bad_input()
    assert refine("--review", 101).is_bad_input()
    assert run("refine", data_set.images, "-o", tmp_path / "out", "--review", 1).is_bad_input()
