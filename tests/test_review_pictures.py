import numpy as np
from PIL import Image

from ddps.review_pictures import CHANGED, LONG_SIDE, full_palette, small_pictures, tells_apart
from ddps.visualize import default_palette

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def pictures(width, height, grey=255):
    before = np.zeros((height, width), dtype=np.int64)
    before[: height // 2] = 1
    after = before.copy()
    after[0, 0], after[-1, :] = 2, -1
    return small_pictures(Image.new("RGB", (width, height), (grey,) * 3), before, after, before != after, PALETTE)


def test_the_long_side_is_bounded_and_the_shape_kept():
    for width, height, size in ((1280, 640, (320, 160)), (100, 1000, (32, 320)), (3, 4, (3, 4)), (5000, 1, (320, 1))):
        made = pictures(width, height)
        assert {picture.size for picture in made.values()} == {size} and max(size) <= LONG_SIDE


def test_colours():
    made = pictures(8, 8)
    assert made["before"].getpixel((3, 0)) == PALETTE[1] and made["before"].getpixel((3, 6)) == PALETTE[0]
    assert made["after"].getpixel((0, 0)) == PALETTE[2] and made["after"].getpixel((3, 7)) == (0, 0, 0)


def test_the_difference_is_pale_but_for_what_changed():
    for grey in (0, 255):
        picture = np.array(pictures(8, 8, grey)["difference"])
        assert tuple(picture[0, 0]) == CHANGED
        assert picture[1:-1].min() >= 127 and np.ptp(picture[1:-1]) == 0


def test_a_thin_change_is_seen_in_a_small_picture():
    changed = np.zeros((960, 960), dtype=bool)
    changed[:, 480] = True
    labels = np.zeros((960, 960), dtype=np.int64)
    picture = small_pictures(Image.new("RGB", (960, 960)), labels, labels, changed, PALETTE)["difference"]
    assert picture.getpixel((160, 100)) == CHANGED


def test_palettes_that_tell_classes_apart():
    assert tells_apart(PALETTE, [0, 2]) and tells_apart(((0, 0, 0), (1, 1, 1)), [0, 1])
    assert not tells_apart((), [0]) and not tells_apart(PALETTE, []) and not tells_apart(PALETTE, [0, 3])
    assert not tells_apart(((5, 5, 5), (5, 5, 5)), [0, 1]) and not tells_apart(((5, 5, 5), (0, 0, 0)), [0, 1])


def test_a_palette_is_filled_up_with_ours():
    assert full_palette((), 2)[:3] == default_palette(3)
    full = full_palette(PALETTE, 40000)
    assert full[:3] == PALETTE and len(full) > 40000 and full[3:300] == default_palette(300)[3:]
