"""Two diagrams for every input: reliability, and error against coverage. Pillow only."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from .calibration import Calibration

# Okabe and Ito's colours, told apart by colour-blind eyes too; the marks differ as well.
_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167))
_INK, _FAINT, _PAPER = (32, 32, 32), (205, 205, 205), (255, 255, 255)
# Drawn larger, then made smaller, for smooth lines.
_SCALE = 3
_SIDE, _GAP, _HEAD, _FOOT = 230, 62, 30, 46
Point = tuple[float, float]


def draw_calibration(inputs: Sequence[tuple[str, Mapping[str, Calibration]]]) -> Image.Image:
    """A row for every input.

    Args:
        inputs: title, and who answered → what was counted; the same names in every row.

    Returns:
        RGB. Left: share of right pixels against confidence, in bins, the area of a mark being the share of the pixels;
        on the diagonal, confidence is right. Right: error among the pixels that are kept when the most uncertain ones
        are left out.
    """
    row = _HEAD + _SIDE + _FOOT
    size = 2 * (_SIDE + _GAP) + _GAP // 2, row * len(inputs)
    picture = Image.new("RGB", (_SCALE * size[0], _SCALE * size[1]), _PAPER)
    for index, (title, found) in enumerate(inputs):
        _draw_row(_Pen(ImageDraw.Draw(picture), _GAP, index * row + _HEAD), title, found)
    return picture.resize((2 * size[0], 2 * size[1]), Image.Resampling.LANCZOS)


class _Pen:
    """Draws in a square whose sides are 1, y upwards."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: float, top: float):
        self.draw, self.left, self.top = draw, left, top

    def place(self, x: float, y: float) -> Point:
        return _SCALE * (self.left + _SIDE * x), _SCALE * (self.top + _SIDE * (1 - y))

    def line(self, points: Sequence[Point], colour: tuple[int, int, int], width: float = 1.0) -> None:
        self.draw.line([self.place(*point) for point in points], fill=colour, width=round(_SCALE * width))

    def mark(self, x: float, y: float, radius: float, square: bool, colour: tuple[int, int, int]) -> None:
        column, line = self.place(x, y)
        reach = _SCALE * radius
        box = (column - reach, line - reach, column + reach, line + reach)
        draw = self.draw.rectangle if square else self.draw.ellipse
        draw(box, fill=colour, outline=_PAPER, width=_SCALE // 2)

    def text(self, x: float, y: float, text: str, anchor: str, down: float = 0.0, size: int = 11) -> None:
        column, line = self.place(x, y)
        font = ImageFont.load_default(_SCALE * size)
        self.draw.text((column, line + _SCALE * down), text, fill=_INK, font=font, anchor=anchor)

    def frame(self, title: str, below: str, high: float, unit: str = "%") -> None:
        """Axes with five grid lines; `high` is the number at the top."""
        for tick in range(6):
            share = tick / 5
            self.line([(share, 0), (share, 1)], _FAINT, 0.5)
            self.line([(0, share), (1, share)], _FAINT, 0.5)
            self.text(share, 0, f"{100 * share:.0f}", "ma", 5, 9)
            self.text(-0.02, share, f"{high * share:.3g}", "rm", 0, 9)
        self.line([(0, 1), (0, 0), (1, 0)], _INK)
        self.text(0, 1, title, "lb", -6)
        self.text(0.5, 0, f"{below}, {unit}", "ma", 20, 10)


def _draw_row(pen: _Pen, title: str, found: Mapping[str, Calibration]) -> None:
    pen.frame(f"{title}: right pixels, %", "confidence", 100)
    pen.line([(0, 0), (1, 1)], _INK, 0.7)
    for index, (who, one) in enumerate(found.items()):
        colour, square = _COLOURS[index % len(_COLOURS)], index % 2 == 0
        points = one.reliability.points()
        pen.line([(x, y) for x, y, _ in points], colour, 1.5)
        for x, y, share in points:
            pen.mark(x, y, 2 + 8 * share**0.5, square, colour)
        low = 0.05 + 0.075 * (len(found) - 1 - index)
        pen.mark(0.44, low, 4, square, colour)
        pen.text(0.47, low, f"{who}, ECE {one.reliability.ece:.2f} %", "lm", 0, 10)
    curves = {who: one.detection.curve() for who, one in found.items()}
    most = max((float(curve.error.max()) for curve in curves.values() if curve.error.max() > 0), default=1.0)
    high = next(step for step in (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 75, 100) if step >= min(most, 100) - 1e-9)
    right = _Pen(pen.draw, pen.left + _SIDE + _GAP, pen.top)
    right.frame("wrong among those kept, %", "pixels kept, the least uncertain ones", high)
    for index, (who, curve) in enumerate(curves.items()):
        colour, square = _COLOURS[index % len(_COLOURS)], index % 2 == 0
        points2 = list(zip(curve.coverage.tolist(), (curve.error / high).tolist(), strict=True))
        for pair in pairwise(points2):
            right.line(pair, colour, 1.5)
        for point in points2[9::10]:
            right.mark(*point, 3, square, colour)
        low = 0.95 - 0.075 * index
        right.mark(0.05, low, 4, square, colour)
        right.text(0.08, low, f"{who}, AUROC {found[who].detection.auroc:.1f} %", "lm", 0, 10)
