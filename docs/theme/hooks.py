"""What the built pages have beyond the Markdown that GitHub shows: files that pages link to, and diagrams.

Loaded by MkDocs (`hooks` in .mkdocs.yml). Pages stay plain Markdown, whose links work in the repository as well.
"""

import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from diagrams import draw_flowchart

# Out of docs/, or to a folder in it.
LINK = re.compile(r"\]\((\.\./[^)#\s]+|(?:[\w.-]+/)+)(#[^)\s]*)?\)")
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".json": "json", ".sh": "bash", ".yml": "yaml", ".toml": "toml"}
# A page's own words for the search, not those of the programs that it links to.
HEADER = "---\nhide: [toc]\nsearch:\n  exclude: true\n---\n"
# Wide pictures, and a page that is one screen.
WITHOUT_CONTENTS = ("index.md", "plots.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for every folder, and every file outside docs/, that a page links to; and the web page's logo."""
    repository = Path(config.config_file_path).parent
    for path in sorted({target for file in files.documentation_pages() for target in _linked(file)}):
        name = _source_name(path)
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=HEADER + _show(repository / path, path)))
    logo = repository / "ddps" / "app" / "favicon.svg"
    files.append(File.generated(config, "theme/logo.svg", abs_src_path=str(logo)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns such links to the pages of `on_files`, and diagrams into pictures."""
    here = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri in WITHOUT_CONTENTS:
        page.meta["hide"] = ["toc"]

    def turned(match: re.Match[str]) -> str:
        name = _source_name(posixpath.normpath(posixpath.join("docs", here, match[1])))
        return f"]({posixpath.relpath(name, here or '.')})"

    drawn = DIAGRAM.sub(lambda match: draw_flowchart(match[1]), markdown)
    return LINK.sub(turned, drawn)


def _linked(file: File) -> Iterator[str]:
    for match in LINK.finditer(file.content_string):
        yield posixpath.normpath(posixpath.join("docs", posixpath.dirname(file.src_uri), match[1]))


def _source_name(path: str) -> str:
    """ddps/refiner.py → source/ddps/refiner.py.md; README.md of the repository is the page that begins the site."""
    return "index.md" if path == "README.md" else f"source/{path}.md"


def _show(path: Path, name: str) -> str:
    if path.is_dir():
        found = [one for one in sorted(path.iterdir()) if one.suffix in LANGUAGES]
        return f"# {name}\n\n" + "\n".join(f"## {one.name}\n\n{_code(one)}" for one in found)
    if path.suffix == ".md":
        return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return f"# {os.path.basename(name)}\n\n`{name}`\n\n{_code(path)}"


def _code(path: Path) -> str:
    fence = "`" * 5
    return f"{fence}{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8').rstrip()}\n{fence}\n"
