"""A run's log as an SVG picture: the loss, and mIoU and mBIoU at every validation against the segmentor alone."""

import json
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from ..atomic import atomic_write

CURVES_FILE = "curves.svg"
PANEL_WIDTH, PANEL_HEIGHT, MARGIN, HEADER, LINE = 320, 200, 48, 40, 16
COLOURS = ("#1f6fb4", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#444444")
Points = Sequence[tuple[float, float]]


def draw_curves(log: Path, target: Path) -> None:
    """Draws `log.jsonl` of a run into an SVG file; a line that was cut short by a kill is left out.

    Args:
        log: rows of `{"step", "loss"}` and of `{"step", "validation"}`.
        target: file to write; one that is there is replaced.
    """
    rows = _read(log)
    with atomic_write(target, overwrite=True) as file:
        file.write(curves(rows).encode())


def curves(rows: Sequence[dict[str, object]]) -> str:
    """The SVG text of a log's rows.

    A resumed run logs some steps twice: the later row counts.
    """
    loss: dict[float, float] = {}
    figures: dict[str, dict[str, dict[float, float]]] = {"mIoU": {}, "mBIoU": {}}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int | float):
            continue
        if isinstance(value := row.get("loss"), int | float):
            loss[step] = value
        validation = row.get("validation")
        for report in validation.get("reports", ()) if isinstance(validation, dict) else ():
            for title, key in (("mIoU", "miou"), ("mBIoU", "mbiou")):
                for name, field in ((f"{report['set']}, refined", key), (f"{report['set']}, alone", f"base_{key}")):
                    figures[title].setdefault(name, {})[step] = report[field]
    panels = [("loss", {"training loss": loss})] + [(f"{title} in %", lines) for title, lines in figures.items()]
    keys = max(len(lines) for _, lines in panels)
    height = HEADER + PANEL_HEIGHT + MARGIN + LINE * keys
    width = len(panels) * (PANEL_WIDTH + MARGIN) + MARGIN
    last = max([1.0, *(step for _, lines in panels for points in lines.values() for step in points)])
    drawn = [
        _panel(title, [(name, sorted(points.items())) for name, points in lines.items()], MARGIN + left, last)
        for (title, lines), left in zip(panels, range(0, width, PANEL_WIDTH + MARGIN), strict=False)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#222222">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "".join(drawn) + "</svg>\n"
    )


def _panel(title: str, lines: Sequence[tuple[str, Points]], left: int, last: float) -> str:
    points = [point for _, line in lines for point in line]
    bottom = HEADER + PANEL_HEIGHT
    parts = [
        f'<text x="{left}" y="{HEADER - 12}" font-size="14">{escape(title)}</text>\n',
        f'<rect x="{left}" y="{HEADER}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="none" stroke="#999999"/>\n',
    ]
    if not points:
        middle = HEADER + PANEL_HEIGHT // 2
        return (
            "".join(parts) + f'<text x="{left + PANEL_WIDTH // 2}" y="{middle}" text-anchor="middle">none yet</text>\n'
        )
    low, high = min(y for _, y in points), max(y for _, y in points)
    room = 0.05 * (high - low) or 0.5
    low, high = low - room, high + room

    def place(x: float, y: float) -> tuple[float, float]:
        return left + PANEL_WIDTH * x / last, bottom - PANEL_HEIGHT * (y - low) / (high - low)

    for value, at in ((low, bottom), ((low + high) / 2, (HEADER + bottom) // 2), (high, HEADER)):
        parts.append(f'<text x="{left - 4}" y="{at + 4}" text-anchor="end">{value:.3g}</text>\n')
    parts.append(f'<text x="{left}" y="{bottom + 14}">0</text>\n')
    parts.append(f'<text x="{left + PANEL_WIDTH}" y="{bottom + 14}" text-anchor="end">step {last:.0f}</text>\n')
    for index, (name, line) in enumerate(lines):
        # a segmentor alone has the colour of its refined masks, dashed
        colour = COLOURS[index // 2 % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if index % 2 else ""
        placed = [place(x, y) for x, y in line]
        for (x0, y0), (x1, y1) in pairwise(placed):
            ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
            parts.append(f'<line {ends} stroke="{colour}" stroke-width="1.6"{dash}/>\n')
        if len(placed) < 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>\n' for x, y in placed]
        top = bottom + MARGIN - 14 + LINE * index
        parts.append(f'<line x1="{left}" y1="{top}" x2="{left + 22}" y2="{top}" stroke="{colour}"{dash}/>\n')
        now = f"{escape(name)}: {line[-1][1]:.2f}" if line else escape(name)
        parts.append(f'<text x="{left + 28}" y="{top + 4}">{now}</text>\n')
    return "".join(parts)


def _read(log: Path) -> list[dict[str, object]]:
    rows = []
    for line in log.read_text().splitlines() if log.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
