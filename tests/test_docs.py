"""The pages: links and pictures lead somewhere, snippets are Python, and the site builds from what is here alone."""

import ast
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
names = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def prose(page: Path) -> str:
    """The page without its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and MkDocs both make them; objects of the reference by their path."""
    text = page.read_text(encoding="utf-8")
    found = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    for title in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", title.lower()).strip()
        found.add(re.sub(r"\s", "-", words))
    return found


@names
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert found.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor and found.suffix == ".md":
            known = anchors(found)
            # A method of an object that the page describes.
            assert anchor in known or anchor.rpartition(".")[0] in known, f"{page.name} links to {target}"


@names
def test_python_parses(page):
    for indent, _, language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(re.sub(f"^{indent}", "", code, flags=re.MULTILINE))


def test_every_page_is_in_the_nav_once():
    listed: list[str] = []

    def collect(entry):
        for one in entry:
            value = next(iter(one.values())) if isinstance(one, dict) else one
            listed.append(value) if isinstance(value, str) else collect(value)

    collect(yaml.safe_load((ROOT / ".mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_public_names_are_in_the_reference():
    import ddps

    described = set().union(*(anchors(page) for page in DOCS.glob("api*.md")))
    assert {f"ddps.{name}" for name in ddps.__all__ if not name.startswith("__")} <= described
    for path in (name for name in described if name.startswith("ddps.")):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


class _Loaded(HTMLParser):
    """What a browser fetches for a page: scripts, styles, pictures, fonts."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(values.get("src") or "")
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(values.get("href") or "")


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="building the site needs pip install '.[docs]'",
)
def test_the_site_builds_and_fetches_nothing(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / ".mkdocs.yml"), "-d", str(site)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        parser = _Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert not [link for link in parser.found if re.match(r"(https?:)?//", link)], page
    # A link that leaves docs/ leads to a page with that file, a diagram is drawn, a docstring is there.
    assert (site / "source" / "examples" / "segformer.py.html").exists()
    assert 'href="source/examples/segformer.py.html"' in (site / "segmentors.html").read_text(encoding="utf-8")
    architecture = (site / "architecture.html").read_text(encoding="utf-8")
    assert "<svg" in architecture.partition('class="diagram"')[2] and "flowchart" not in architecture
    assert "Refines the masks of any segmentor" in (site / "api.html").read_text(encoding="utf-8")
