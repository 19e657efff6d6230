from html.parser import HTMLParser

from ddps.review import Move, Row
from ddps.review_page import PICTURES, Page, PageItem, class_name, render

NASTY = '</h2><script>alert("x")</script>&amp;\'%23?a#b:ü'


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def item(name, changed=5.0):
    row = Row(name, changed, 1.25, (Move(0, 7, 4.0), Move(1, 0, 0.001)), 0.1)
    return PageItem(row, {kind: f"review/{name}.{kind}.png" for kind in PICTURES}, (320, 200), f"../images/{name}.jpg")


def page(*items, listed=None, names=("road", "<b>")):
    listed = len(items) if listed is None else listed
    return render(Page("Labels", 2.0, listed, 1000, items, names, {0: (1, 2, 3), 1: (4, 5, 6)}, True))


def test_every_item_has_its_pictures_and_figures():
    elements = Elements(page(item("a"), item("b")))
    assert [a["data-name"] for a in elements.all("article")] == ["a", "b"]
    assert [a["src"] for a in elements.all("img")][:4] == [f"./review/a.{kind}.png" for kind in PICTURES]
    assert all(a["width"] == "320" and a["height"] == "200" and a["alt"] for a in elements.all("img"))
    text = " ".join("".join(elements.text).split())
    assert "5.00 % changed" in text and "1.25 % uncertain" in text and "road → 7 4.00 %" in text
    assert "0.00" not in text


def test_names_are_text_and_never_markup():
    text = page(item(NASTY), names=(NASTY, "b"))
    elements = Elements(text)
    assert len(elements.all("script")) == 1 and "alert(" not in "".join(text.split("<script>")[1:]).replace(NASTY, "")
    assert elements.all("article")[0]["data-name"] == NASTY
    link = elements.all("img")[0]["src"]
    assert link.startswith("./review/%3C/h2%3E") and not set(link) & set("<>\"'#?&: ")
    assert elements.all("a")[0]["href"].startswith("./../images/")


def test_bytes_that_are_no_text_are_linked():
    assert "./review/%FF.image.png" in page(item("\udcff"))


def test_it_loads_nothing_from_elsewhere():
    text = page(item("a"))
    assert "http" not in text and "//" not in text.replace("</", "")


def test_the_legend():
    text = page(item("a"))
    assert "#010203" in text and "&lt;b&gt;" in text and "void" in text
    many = Page("x", 1, 1, 1, [item("a")], (), {i: (0, 0, 0) for i in range(500)}, False)
    assert "and 300 more classes" in render(many)


def test_it_says_when_more_are_listed_than_shown():
    assert "summary.json lists all" in page(item("a"), listed=300) and "300 of 1,000" in page(item("a"), listed=300)
    assert "summary.json" not in page(item("a"))


def test_nothing_to_look_at():
    elements = Elements(page())
    assert "Nothing to look at." in "".join(elements.text) and not elements.all("button")


def test_an_item_whose_files_have_gone():
    assert "can no longer be read" in page(PageItem(Row("a", 1.0, 1.0, (), 0.1), {}, (1, 1), None))


def test_class_names():
    assert class_name(("road",), 0) == "road" and class_name(("road",), 1) == "1" and class_name((), 0) == "0"
