"""Mermaid's simplest flowcharts as SVG, in the page's own colours: mermaid itself would be fetched from the web."""

import re
from html import escape

NODE = re.compile(r'(\w+)(?:\["([^"]*)"\])?')
CHAR, LINE, PAD, COLUMN_GAP, ROW_GAP = 7.2, 17, 12, 58, 20


def draw_flowchart(source: str) -> str:
    """A flowchart of boxes and arrows, from left to right.

    Args:
        source: `flowchart LR`, then a line `a["text<br/>text"] --> b` for every arrow; no circles.

    Returns:
        An SVG element in a scrollable box.
    """
    labels: dict[str, list[str]] = {}
    arrows: list[tuple[str, str]] = []
    for line in source.splitlines()[1:]:
        ends = [NODE.fullmatch(part.strip()) for part in line.split("-->")]
        if len(ends) != 2 or None in ends:
            raise ValueError(f"expected an arrow between two boxes; got {line!r}")
        names = [end[1] for end in ends if end is not None]
        for end in ends:
            if end is not None and (end[2] or end[1] not in labels):
                labels[end[1]] = (end[2] or end[1]).split("<br/>")
        arrows.append((names[0], names[1]))
    boxes, width, height = _place(labels, _columns(labels, arrows), arrows)
    drawn = [_arrow(boxes[a], boxes[b]) for a, b in arrows] + [_box(boxes[name], labels[name]) for name in labels]
    return (
        f'<div class="diagram"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img"><defs>'
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>' + "".join(drawn) + "</svg></div>\n"
    )


Box = tuple[float, float, float, float]  # left, top, width, height


def _columns(labels: dict[str, list[str]], arrows: list[tuple[str, str]]) -> dict[str, int]:
    """Longest way from a box without arrows into it."""
    column = dict.fromkeys(labels, 0)
    for _ in labels:
        for start, end in arrows:
            column[end] = max(column[end], column[start] + 1)
    return column


def _place(
    labels: dict[str, list[str]], column: dict[str, int], arrows: list[tuple[str, str]]
) -> tuple[dict[str, Box], float, float]:
    """Boxes of every column below each other, by the mean height of what points at them."""
    boxes: dict[str, Box] = {}
    left = 1.0
    tall = 0.0
    stacks: list[list[str]] = []
    for index in range(max(column.values()) + 1):
        names = [name for name in labels if column[name] == index]
        stacks.append(names)
        tall = max(tall, sum(_height(labels[name]) + ROW_GAP for name in names) - ROW_GAP)
    for names in stacks:
        names.sort(key=lambda name: _wanted(name, boxes, arrows))
        wide = max(max(map(len, labels[name])) for name in names) * CHAR + 2 * PAD
        top = 1 + (tall - sum(_height(labels[name]) + ROW_GAP for name in names) + ROW_GAP) / 2
        for name in names:
            boxes[name] = (left, top, wide, _height(labels[name]))
            top += _height(labels[name]) + ROW_GAP
        left += wide + COLUMN_GAP
    return boxes, left - COLUMN_GAP + 1, tall + 2


def _height(lines: list[str]) -> float:
    return LINE * len(lines) + 2 * PAD


def _wanted(name: str, boxes: dict[str, Box], arrows: list[tuple[str, str]]) -> float:
    heights = [boxes[a][1] + boxes[a][3] / 2 for a, b in arrows if b == name and a in boxes]
    return sum(heights) / len(heights) if heights else 0.0


def _box(box: Box, lines: list[str]) -> str:
    left, top, width, height = box
    texts = "".join(
        f'<text x="{left + width / 2:.1f}" y="{top + PAD + LINE * (index + 0.75):.1f}"'
        f"{' class=' + chr(34) + 'name' + chr(34) if index == 0 else ''}>{escape(line)}</text>"
        for index, line in enumerate(lines)
    )
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>{texts}'


def _arrow(start: Box, end: Box) -> str:
    x, y = start[0] + start[2], start[1] + start[3] / 2
    to_x, to_y = end[0] - 2, end[1] + end[3] / 2
    bend = (to_x - x) / 2
    return (
        f'<path class="arrow" marker-end="url(#head)" '
        f'd="M{x:.1f} {y:.1f}C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"/>'
    )
