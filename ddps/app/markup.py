"""The page's own HTML. Names of files and classes may hold anything."""

import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..visualize import Colour
from .pictures import CHANGED, data_uri
from .uploads import Limits

MOST_SWATCHES = 40
"""Classes in the legend."""


def header() -> str:
    """What the page is, in a sentence."""
    return _HEADER


def label(text: str) -> str:
    """The heading of a group of controls."""
    return f'<p class="ddps-label">{html.escape(text)}</p>'


def empty() -> str:
    """What stands where the answer will be."""
    return _EMPTY


def half(has_image: bool) -> str:
    """What stands where the answer will be while one of the two files is missing."""
    missing = "Now add its prediction" if has_image else "Now add the image"
    return f'<section class="ddps-empty">{_SKETCH}<h2>{missing}</h2><p>{_FORMATS}</p></section>'


def footer(limits: Limits, device: str) -> str:
    """What the page takes, and where files go.

    Args:
        limits: of uploads.
        device: that the refiner runs on, as torch names it.
    """
    return (
        f'<p class="ddps-footer">Takes images of up to {limits.pixels / 1e6:.1f} megapixels and predictions of up to '
        f"{limits.values / 1e6:.0f} million values. Runs on the {html.escape(device.upper())} of the machine that "
        "serves this page; files stay there and are deleted after an hour. Larger ones, folders and scripts: "
        "<code>ddps refine</code>.</p>"
    )


def error(problem: InputError) -> str:
    """One sentence in place of the answer."""
    sentence = f"Expected {problem.expected}, got {problem.got}. Try {problem.hint}."
    return f'<div class="ddps-error" role="alert"><b>That cannot be refined.</b> {html.escape(sentence)}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Figures with their captions.

    Args:
        pairs: (figure, caption).
    """
    items = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for value, name in pairs)
    return f'<dl class="ddps-facts">{items}</dl>'


def legend(
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    palette: Sequence[Colour],
    names: Sequence[str],
    bare: int | None,
) -> str:
    """Swatch, name and share of the refined mask of every class that either mask shows, the largest first.

    Args:
        before, after: (H, W) class ids; those without a colour count as void.
        palette: colour of id 0, 1, 2, ...
        names: name of id 0, 1, 2, ...; where there is none, the id itself is written.
        bare: the class that the pictures leave uncoloured.
    """
    shares, present = _shares(after, len(palette)), _shares(before, len(palette)) > 0
    void = shares[-1]
    ids = [int(i) for i in np.argsort(-shares[:-1], kind="stable") if shares[i] > 0 or present[i]]
    entries = [
        _swatch(palette[i], class_name(names, i), float(shares[i]), "bare" if i == bare else "")
        for i in ids[:MOST_SWATCHES]
    ]
    if len(ids) > MOST_SWATCHES:
        entries.append(f"<li>and {len(ids) - MOST_SWATCHES} more classes</li>")
    if void > 0:
        entries.append(_swatch((0, 0, 0), "void", float(void), "bare"))
    return f'<ul class="ddps-legend" aria-label="classes">{"".join(entries)}</ul>'


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or its id where it has none."""
    return names[index] if index < len(names) and names[index] else f"class {index}"


def preview(picture: Image.Image, legend: str, facts: str) -> str:
    """The uploads, before they are refined."""
    return f"""<section class="ddps-result">
<h2>Ready to refine</h2>
<figure class="ddps-stage" {_ratio(picture)}>{_image(picture, "your image with its mask")}
<span class="ddps-tag left">your mask</span></figure>
{legend}{facts}
</section>"""


def comparison(before: Image.Image, after: Image.Image, legend: str, facts: str) -> str:
    """The image under its mask, before on the left of a line that can be moved, and after on its right.

    Args:
        before, after: pictures of one size.
        legend: of `legend`.
        facts: of `facts`.
    """
    return f"""<section class="ddps-result">
<h2>Before and after</h2>
<figure class="ddps-stage ddps-compare" {_ratio(after)}>{_image(after, "refined mask")}
{_image(before, "mask before", "before")}
<span class="ddps-tag left">your mask</span><span class="ddps-tag right">refined</span>
<span class="ddps-bar" aria-hidden="true"></span>
<input type="range" min="0" max="100" step="0.1" value="50" aria-label="compare before and after"
 oninput="this.parentNode.style.setProperty('--x', this.value / 100)"></figure>
{legend}{facts}
</section>"""


def details(
    crops: Sequence[tuple[Image.Image, Image.Image]],
    uncertainty: Image.Image,
    changes: Image.Image,
    steps: Sequence[tuple[str, Image.Image]],
) -> str:
    """What is below the comparison.

    Args:
        crops: (before, after) of the windows that changed most.
        uncertainty: heat map.
        changes: changed pixels over the image.
        steps: (caption, picture) of the chain, or none.
    """
    parts = []
    if crops:
        pairs = "".join(
            f'<div class="ddps-crop">{_image(one, "before")}{_image(other, "after")}</div>' for one, other in crops
        )
        parts.append(
            "<h3>Where it changed most</h3>"
            '<p class="ddps-note">Magnified: your mask on the left, refined on the right.</p>'
            f'<div class="ddps-crops">{pairs}</div>'
        )
    parts.append(f"""<div class="ddps-pair">
<div><h3>Uncertainty</h3><figure class="ddps-stage" {_ratio(uncertainty)}>{_image(uncertainty, "uncertainty")}</figure>
<div class="ddps-scale"><span>sure</span><i></i><span>two classes equally likely</span></div></div>
<div><h3>Changed pixels</h3><figure class="ddps-stage" {_ratio(changes)}>{_image(changes, "changed pixels")}</figure>
<div class="ddps-scale"><i class="dot" style="background:{_hex(CHANGED)}"></i>
<span>another class than in your mask</span></div></div></div>""")
    if steps:
        strip = "".join(
            f"<figure>{_image(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, picture in steps
        )
        parts.append(
            '<h3>Denoising, step by step</h3><p class="ddps-note">The chain starts from your mask with noise added; '
            f'each step says what it takes the clean mask to be.</p><div class="ddps-strip" tabindex="0">{strip}</div>'
        )
    return f'<section class="ddps-result">{"".join(parts)}</section>'


def _shares(labels: NDArray[np.integer], classes: int) -> NDArray[np.float64]:
    """(classes + 1,) shares of the pixels, the last one of those that have none of the classes."""
    known = (labels >= 0) & (labels < classes)
    counts = np.bincount(np.where(known, labels, classes).ravel(), minlength=classes + 1)
    return counts / max(1, labels.size)


def _swatch(colour: Colour, name: str, share: float, kind: str) -> str:
    style = "" if kind else f' style="background:{_hex(colour)}"'
    shown = "<0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}"
    text = html.escape(name)
    return f'<li title="{text}"><i class="{kind}"{style}></i><span>{text}</span><b>{html.escape(shown)} %</b></li>'


def _image(picture: Image.Image, alt: str, kind: str = "") -> str:
    return (
        f'<img class="{kind}" src="{data_uri(picture)}" width="{picture.width}" height="{picture.height}" '
        f'alt="{html.escape(alt)}" draggable="false">'
    )


def _ratio(picture: Image.Image) -> str:
    """Tall pictures are narrowed so that they fit on a screen; small ones are not blown up beyond recognition."""
    return f'style="--w:{picture.width};--h:{picture.height}"'


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


_HEADER = """<header class="ddps-header"><p class="ddps-brand">ddps</p>
<h1>Sharper masks from any segmentor</h1>
<p>Give it an image and the mask that a segmentor, or a hurried person, made of it. A discrete diffusion model adds
noise to the mask and takes it away again, guided by the image, and the outlines move to where the image has them.</p>
</header>"""

_SKETCH = """<svg viewBox="0 0 96 64" aria-hidden="true">
<path class="rough" d="M6 40 L26 8 L58 4 L90 28 L80 58 L30 61 Z"/>
<path class="smooth" d="M16 42 C12 24 26 12 44 11 C66 10 84 22 82 38 C81 51 64 56 48 56 C32 57 19 53 16 42 Z"/></svg>"""

_FORMATS = (
    "A prediction is a png of class ids or a black and white mask, or an array of logits, probabilities or class ids "
    "as npy or npz, at the image's size or coarser."
)

_EMPTY = f"""<section class="ddps-empty">{_SKETCH}
<h2>The refined mask will appear here</h2>
<p>Click an example to see it at work, or add an image and its prediction and press <b>Refine</b>.</p>
<p>{_FORMATS}</p></section>"""
