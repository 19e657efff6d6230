"""A page of label maps to look at: one HTML file beside a folder of small pictures, to be opened without a server."""

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from .review import Move, Row
from .review_pictures import CHANGED
from .visualize import Colour

MOST_SWATCHES = 200
"""Classes in the legend."""
LEAST_SHARE = 0.005
"""Of a move that is named: less would read as 0.00 %."""
PICTURES = ("image", "before", "after", "difference")


@dataclass(frozen=True)
class PageItem:
    """One item of the page.

    Attributes:
        row: its figures.
        pictures: name of each of `PICTURES` → path from the page; empty where its files could not be read again.
        size: (width, height) of the pictures, in pixels.
        image: path from the page to the image itself, or None.
    """

    row: Row
    pictures: Mapping[str, str]
    size: tuple[int, int]
    image: str | None


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        title: of the page.
        threshold: least share of changed pixels, in percent.
        listed: how many items reach it; `items` may be fewer.
        measured: how many items were compared.
        items: in the order of the page.
        names: of class 0, 1, 2, ..., or empty.
        legend: class id → colour, of the classes on the page.
        has_void: whether pixels without a label are on the page.
    """

    title: str
    threshold: float
    listed: int
    measured: int
    items: Sequence[PageItem]
    names: Sequence[str]
    legend: Mapping[int, Colour]
    has_void: bool


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or its id where it has none."""
    return names[index] if 0 <= index < len(names) else str(index)


def render(page: Page) -> str:
    """The HTML of a page. File and class names may hold anything."""
    shown = len(page.items)
    facts = f"{page.listed:,} of {page.measured:,} items have at least {page.threshold:g} % of their pixels changed."
    if shown < page.listed:
        facts += f" This page shows the {shown:,} most changed; summary.json lists all."
    body = "\n".join(_item(item, page.names, place) for place, item in enumerate(page.items, 1))
    return _PAGE.format(
        title=html.escape(page.title),
        facts=html.escape(facts),
        legend=_legend(page),
        sorting=_SORTING if shown > 1 else "",
        items=body or '<p class="none">Nothing to look at.</p>',
        style=_STYLE.replace("CHANGED", _hex(CHANGED)),
        script=_SCRIPT,
    )


def _item(item: PageItem, names: Sequence[str], place: int) -> str:
    row = item.row
    name = html.escape(row.name)
    figures = "\n".join(_figure(what, item) for what in PICTURES if what in item.pictures)
    if not figures:
        figures = '<p class="none">Its files can no longer be read.</p>'
    return _ITEM.format(
        place=place,
        name=name,
        changed=f"{row.changed or 0.0:.2f}",
        uncertainty=f"{row.uncertainty or 0.0:.2f}",
        sort_changed=repr(row.changed or 0.0),
        sort_uncertainty=repr(row.uncertainty or 0.0),
        moves="".join(f"<li>{_move(move, names)}</li>" for move in row.moves if move.share >= LEAST_SHARE),
        figures=figures,
    )


def _move(move: Move, names: Sequence[str]) -> str:
    before, after = (html.escape(class_name(names, index)) for index in (move.before, move.after))
    return f"{before} → {after} <b>{move.share:.2f}&nbsp;%</b>"


def _figure(what: str, item: PageItem) -> str:
    width, height = item.size
    alt = html.escape(f"{what} of {item.row.name}")
    picture = (
        f'<img class="{what}" src="{_link(item.pictures[what])}" width="{width}" height="{height}" '
        f'alt="{alt}" loading="lazy">'
    )
    if what == "image" and item.image is not None:
        picture = f'<a href="{_link(item.image)}">{picture}</a>'
    return f"<figure>{picture}<figcaption>{what}</figcaption></figure>"


def _legend(page: Page) -> str:
    classes = sorted(page.legend.items())
    entries = [(class_name(page.names, index), colour) for index, colour in classes[:MOST_SWATCHES]]
    if page.has_void:
        entries.append(("void", (0, 0, 0)))
    swatches = [f'<li><i style="background:{_hex(colour)}"></i>{html.escape(name)}</li>' for name, colour in entries]
    if len(classes) > MOST_SWATCHES:
        swatches.append(f"<li>and {len(classes) - MOST_SWATCHES} more classes</li>")
    if page.items:
        swatches.append(f'<li class="apart"><i style="background:{_hex(CHANGED)}"></i>changed</li>')
    return "".join(swatches)


def _link(path: str) -> str:
    """A relative address. The bytes of the name count, whatever characters they stand for; `./` keeps a colon in it
    from being read as a scheme."""
    return "./" + quote(os.fsencode(path.replace(os.sep, "/")))


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


_ITEM = """<article data-changed="{sort_changed}" data-uncertainty="{sort_uncertainty}" data-name="{name}">
<header><span class="place">{place}</span><h2>{name}</h2>
<p><b>{changed}&nbsp;%</b> changed</p><p><b>{uncertainty}&nbsp;%</b> uncertain</p></header>
<ul class="moves">{moves}</ul>
<div class="pictures">
{figures}
</div>
</article>"""

_SORTING = """<nav aria-label="order"><span>Order:</span>
<button data-by="changed" aria-pressed="true">most changed</button>
<button data-by="uncertainty" aria-pressed="false">most uncertain</button>
<button data-by="name" aria-pressed="false">name</button></nav>"""

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #59626c; --line: #dfe3e8; --wash: #f5f6f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 28px 28px 60px; background: #fff; color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 6px; font-size: 26px; font-weight: 650; letter-spacing: -0.01em; }
.facts { margin: 0 0 4px; }
.note { margin: 0 0 16px; max-width: 90ch; color: var(--soft); font-size: 13px; }
ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px; }
.legend { font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend i { width: 14px; height: 14px; border-radius: 3px; border: 1px solid #0003; }
.legend .apart { border-left: 1px solid var(--line); padding-left: 16px; }
nav { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; gap: 8px; margin-top: 14px;
  padding: 10px 0; background: #fff; border-bottom: 1px solid var(--line); font-size: 14px; }
nav span { color: var(--soft); }
button { padding: 4px 12px; border: 1px solid var(--line); border-radius: 99px; background: #fff; color: inherit;
  font: inherit; cursor: pointer; }
button:hover { background: var(--wash); }
button[aria-pressed="true"] { background: var(--ink); border-color: var(--ink); color: #fff; }
article { margin-top: 22px; padding-bottom: 22px; border-bottom: 1px solid var(--line); }
article header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 18px; }
article h2 { margin: 0; font-size: 16px; font-weight: 650; overflow-wrap: anywhere; }
article p { margin: 0; font-variant-numeric: tabular-nums; }
.place { min-width: 1.6em; color: var(--soft); font-variant-numeric: tabular-nums; }
.moves { margin: 3px 0 9px; color: var(--soft); font-size: 13px; }
.moves b { font-weight: 600; color: var(--ink); }
.pictures { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 10px; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; background: var(--wash); border-radius: 4px; }
.before, .after { image-rendering: pixelated; }
figcaption { margin-top: 3px; color: var(--soft); font-size: 12px; }
.none { margin-top: 24px; color: var(--soft); }
@media (max-width: 760px) { body { padding: 16px; } .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media print { nav { display: none; } article { break-inside: avoid; } }
"""

_SCRIPT = """
const list = document.querySelector("main");
const buttons = document.querySelectorAll("nav button");
const number = (item, key) => Number(item.dataset[key]);
const order = {
  changed: (a, b) => number(b, "changed") - number(a, "changed") || number(b, "uncertainty") - number(a, "uncertainty"),
  uncertainty: (a, b) => number(b, "uncertainty") - number(a, "uncertainty"),
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }),
};
buttons.forEach(button => button.addEventListener("click", () => {
  buttons.forEach(other => other.setAttribute("aria-pressed", String(other === button)));
  list.append(...[...list.children].sort(order[button.dataset.by]));
}));
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="facts">{facts}</p>
<p class="note">Changed: share of the labelled pixels that got another class. Uncertain: mean uncertainty of the
labelled pixels, 100&nbsp;% where two classes were as likely as each other.</p>
<ul class="legend">{legend}</ul>
{sorting}
<main>
{items}
</main>
<script>{script}</script>
</body>
</html>
"""
