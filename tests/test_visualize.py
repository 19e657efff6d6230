import numpy as np
import pytest
from PIL import Image

from ddps.errors import InputError
from ddps.visualize import colourise, default_palette, heat_map, legend, overlay, side_by_side, stack


@pytest.mark.parametrize("num_classes", [1, 2, 19, 151, 256, 5000])
def test_palette_colours_are_all_different(num_classes):
    palette = default_palette(num_classes)
    assert len(palette) == len(set(palette)) == num_classes
    assert all(0 <= channel <= 255 for colour in palette for channel in colour)
    assert default_palette(num_classes + 1)[:num_classes] == palette


def test_first_colours_are_far_apart_and_not_black():
    colours = np.array(default_palette(24), dtype=float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distance[~np.eye(24, dtype=bool)].min() > 30
    assert np.linalg.norm(colours[1:] - colours[:-1], axis=1).min() > 120
    assert colours.max(1).min() > 100


@pytest.mark.parametrize("num_classes", [0, -1, 65537])
def test_palette_bounds(num_classes):
    with pytest.raises(InputError, match="num_classes"):
        default_palette(num_classes)


def test_colourise_and_ids_without_colour():
    colours = colourise(np.array([[0, 1, 2, 255, -1]]), [(1, 2, 3), (4, 5, 6)])
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_overlay_leaves_void_pixels_bare():
    image = Image.new("RGB", (2, 1), (100, 100, 100))
    result = overlay(image, np.array([[0, 255]]), [(200, 0, 0)], alpha=0.25)
    assert np.asarray(result).tolist() == [[[125, 75, 75], [100, 100, 100]]]


def test_heat_map_grows_brighter():
    picture = heat_map(np.linspace(0, 1, 101, dtype=np.float32)[None])
    luminance = np.asarray(picture.convert("L"), dtype=int)[0]
    assert picture.size == (101, 1) and picture.mode == "RGB"
    assert (np.diff(luminance) >= 0).all() and luminance[0] < 5 and luminance[-1] > 230
    outside = np.asarray(heat_map(np.array([[-1, 0, 1, 7, np.nan]])))[0]
    assert (outside[0] == outside[1]).all() and (outside[2] == outside[3]).all() and (outside[4] == outside[0]).all()


def test_legend_shows_the_colour_of_every_class():
    palette = default_palette(30)
    picture = legend(palette, ["road", "sky"], range(30), width=300)
    shown = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert picture.width == 300 and set(palette) <= shown
    few = legend(palette, [], [3, 99], width=300)
    shown = {tuple(pixel) for pixel in np.asarray(few).reshape(-1, 3).tolist()}
    assert palette[3] in shown and palette[4] not in shown and few.height < picture.height
    assert legend(palette, [], [], width=10).size == (10, 4)
    assert legend(palette, ["a name far wider than the picture"], [0, 1], width=10).width == 10


def test_panels_stand_side_by_side_at_one_height():
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("L", (80, 60), 200)
    sheet = side_by_side([("before", red), ("after, with a long title", blue)], max_height=45)
    pixels = np.asarray(sheet)
    assert (pixels == (255, 0, 0)).all(-1).sum() == 60 * 45
    assert (pixels == (200, 200, 200)).all(-1).sum() == 60 * 45 or (pixels == 200).all(-1).sum() >= 60 * 45
    assert sheet.height == 45 + 24 + 8
    assert (pixels[:24] != 255).any()
    tall = side_by_side([("", Image.new("RGB", (10, 2000)))])
    assert tall.height == 480 + 24 + 8
    with pytest.raises(InputError, match="panel"):
        side_by_side([])


def test_stack_is_as_wide_as_the_widest():
    sheet = stack([Image.new("RGB", (10, 5), "red"), Image.new("RGB", (30, 7), "blue")])
    assert sheet.size == (30, 12)
    assert sheet.getpixel((0, 0)) == (255, 0, 0) and sheet.getpixel((29, 11)) == (0, 0, 255)
    assert sheet.getpixel((20, 0)) == (255, 255, 255)
