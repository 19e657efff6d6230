"""Pictures of masks: colours, overlays, heat maps, legends and titled panels. Pillow and numpy only."""

import colorsys
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .errors import InputError

Colour: TypeAlias = tuple[int, int, int]
Palette: TypeAlias = tuple[Colour, ...]

_INK, _PAPER, _VOID = (32, 32, 32), (255, 255, 255), (0, 0, 0)
_GOLDEN_RATIO = (5**0.5 - 1) / 2
# Searched at random for the widest gap between any two of the first 24 colours, and between neighbours.
_FIRST_HUE = 0.663
_TONES = ((0.85, 0.70), (0.85, 0.98), (0.65, 0.98), (0.85, 0.98))
# Black, violet, orange, pale yellow: even in lightness, so that it reads in grey and to colour-blind eyes.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float64)


def default_palette(num_classes: int) -> Palette:
    """Distinct colours: hues a golden angle apart, so that neighbouring ids look unlike, in four tones.

    Args:
        num_classes: K, 1 to 65536.

    Returns:
        K different (red, green, blue), 0 to 255.
    """
    if not 1 <= num_classes <= 65536:
        raise InputError("num_classes in [1, 65536]", str(num_classes), "the number of classes")
    colours: dict[Colour, None] = {}
    for index in range(num_classes):
        saturation, value = _TONES[index % len(_TONES)]
        red, green, blue = colorsys.hsv_to_rgb((_FIRST_HUE + index * _GOLDEN_RATIO) % 1, saturation, value)
        colour = (round(red * 255), round(green * 255), round(blue * 255))
        while colour in colours:  # only with hundreds of classes
            code = ((colour[0] << 16 | colour[1] << 8 | colour[2]) + 7) % (1 << 24)
            colour = (code >> 16, code >> 8 & 255, code & 255)
        colours[colour] = None
    return tuple(colours)


def colourise(labels: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """(H, W) class ids → (H, W, 3) uint8 colours; ids without a colour, such as void, are black.

    Args:
        labels: integers.
        palette: colour of id 0, 1, 2, ...
    """
    table = np.array([*palette, _VOID], dtype=np.uint8)
    known = (labels >= 0) & (labels < len(palette))
    colours: np.ndarray = table[np.where(known, labels, len(palette))]
    return colours


def overlay(image: Image.Image, labels: np.ndarray, palette: Sequence[Colour], alpha: float = 0.5) -> Image.Image:
    """The image with its mask's colours over it.

    Args:
        image: of the labels' size.
        labels: (H, W) class ids; pixels without a colour show the bare image.
        palette: colour of id 0, 1, 2, ...
        alpha: weight of the mask, in [0, 1].

    Raises:
        InputError: the sizes differ, or alpha is out of range.
    """
    if not 0 <= alpha <= 1:
        raise InputError("alpha in [0, 1]", str(alpha), "0.5")
    if image.size != (labels.shape[1], labels.shape[0]):
        raise InputError(
            f"an image of the mask's size, {labels.shape[1]} x {labels.shape[0]}",
            f"{image.width} x {image.height}",
            "the image that the mask was made for",
        )
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    known = ((labels >= 0) & (labels < len(palette)))[:, :, None]
    mixed = np.where(known, (1 - alpha) * pixels + alpha * colourise(labels, palette), pixels)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def heat_map(values: np.ndarray) -> Image.Image:
    """(H, W) values in [0, 1], such as the uncertainty, from black (0) over violet and orange to pale yellow (1)."""
    position = np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(position.astype(np.int64), len(_HEAT) - 2)
    weight = (position - low)[:, :, None]
    return Image.fromarray(np.rint((1 - weight) * _HEAT[low] + weight * _HEAT[low + 1]).astype(np.uint8))


def legend(palette: Sequence[Colour], names: Sequence[str], classes: Iterable[int], width: int) -> Image.Image:
    """Colour swatches with names, in as many columns as fit.

    Args:
        palette: colour of id 0, 1, 2, ...
        names: name of id 0, 1, 2, ...; where there is none, the id itself is written.
        classes: ids to list.
        width: of the picture, in pixels.
    """
    font = ImageFont.load_default(12)
    entries = [(palette[i], names[i] if i < len(names) else str(i)) for i in classes if 0 <= i < len(palette)]
    cell = 26 + max((int(font.getlength(name)) for _, name in entries), default=0) + 10
    columns = max(1, width // cell)
    picture = Image.new("RGB", (width, max(1, 4 + 20 * -(-len(entries) // columns))), _PAPER)
    draw = ImageDraw.Draw(picture)
    for position, (colour, name) in enumerate(entries):
        left, top = position % columns * cell + 6, position // columns * 20 + 4
        draw.rectangle((left, top, left + 14, top + 14), fill=colour, outline=_INK)
        draw.text((left + 20, top), name, fill=_INK, font=font)
    return picture


def side_by_side(panels: Sequence[tuple[str, Image.Image]], max_height: int = 480) -> Image.Image:
    """Titled pictures in a row, scaled to one height.

    Args:
        panels: (title, picture), at least one.
        max_height: height of the pictures in pixels; smaller ones keep the height of the tallest.
    """
    if not panels:
        raise InputError("at least one panel", "none", "(title, picture) pairs")
    font, margin, header = ImageFont.load_default(14), 8, 24
    height = min(max_height, max(picture.height for _, picture in panels))
    scaled = [(title, _to_height(picture.convert("RGB"), height)) for title, picture in panels]
    widths = [max(picture.width, int(font.getlength(title)) + 1) for title, picture in scaled]
    total = sum(widths) + margin * (len(widths) + 1)
    sheet = Image.new("RGB", (total, height + header + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = margin
    for (title, picture), width in zip(scaled, widths, strict=True):
        draw.text((left, 4), title, fill=_INK, font=font)
        sheet.paste(picture, (left, header))
        left += width + margin
    return sheet


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below one another, on white."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), _PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture.convert("RGB"), (0, top))
        top += picture.height
    return sheet


def _to_height(picture: Image.Image, height: int) -> Image.Image:
    if picture.height == height:
        return picture
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.BILINEAR)
