import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddps.app.pictures import CHANGED, changes, data_uri, fit, magnified, masked, most_changed

PALETTE = ((255, 0, 0), (0, 0, 255))


def test_masked_colours_what_it_should_and_nothing_else():
    photo = Image.new("RGB", (4, 2), (100, 100, 100))
    labels = np.array([[0, 0, 1, 1], [0, 255, 1, 7]])
    pixels = np.asarray(masked(photo, labels, PALETTE, bare=0)).astype(int)
    assert np.array_equal(pixels[0, 0], [100] * 3) and np.array_equal(pixels[1, 1], [100] * 3)
    assert np.abs(pixels[0, 2] - [50, 50, 178]).max() <= 1 and np.array_equal(pixels[1, 3], [100] * 3)
    assert np.abs(np.asarray(masked(photo, labels, PALETTE)).astype(int)[0, 0] - [178, 50, 50]).max() <= 1


def test_edges_do_not_darken_when_a_picture_is_scaled_down():
    labels = np.full((64, 64), 255)
    labels[:, 31:] = 0
    small = np.asarray(masked(Image.new("RGB", (64, 64), (255, 0, 0)), labels, PALETTE, long_side=16))
    assert small[..., 0].min() >= 254 and small.shape == (16, 16, 3)


def test_a_single_changed_pixel_is_seen_in_a_small_picture():
    changed = np.zeros((300, 300), dtype=bool)
    changed[150:152, 150:152] = True
    pixels = np.asarray(changes(Image.new("RGB", (300, 300)), changed, long_side=150)).astype(int)
    assert (np.abs(pixels - np.array(CHANGED)).max(2) == 0).sum() == 1
    assert (pixels == 127).all(2).sum() == 150 * 150 - 1


def test_most_changed_finds_the_changes_in_order():
    changed = np.zeros((200, 300), dtype=bool)
    changed[20:40, 30:50], changed[150:160, 240:250] = True, True
    (left, top, right, bottom), (left2, top2, right2, bottom2) = most_changed(changed, 4)
    assert left <= 30 and right >= 50 and top <= 20 and bottom >= 40
    assert left2 <= 240 and right2 >= 250 and top2 <= 150 and bottom2 >= 160
    assert most_changed(np.zeros((50, 60), dtype=bool), 3) == []


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.1, 0.9]))
def test_most_changed_gives_squares_inside_that_do_not_overlap(height, width, seed, share):
    changed = np.random.default_rng(seed).random((height, width)) < share
    seen = np.zeros((height, width), dtype=int)
    boxes = most_changed(changed, 3)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height and right - left == bottom - top
        seen[top:bottom, left:right] += 1
    assert seen.max() <= 1 and bool(boxes) == bool(changed.any())


@pytest.mark.parametrize(
    ("size", "fitted"), [((3000, 1500), (1600, 800)), ((20, 10), (20, 10)), ((3200, 1), (1600, 1))]
)
def test_fit_scales_down_only(size, fitted):
    assert fit(Image.new("L", size)).size == fitted


def test_magnified_keeps_pixels_apart():
    picture = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]] * 2, dtype=np.uint8))
    assert set(np.unique(np.asarray(magnified(picture, 64)))) == {0, 255}


def test_data_uri_holds_the_picture():
    head, data = data_uri(Image.new("RGB", (5, 3), (10, 200, 30))).split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (5, 3) and np.abs(np.asarray(picture).astype(int) - [10, 200, 30]).max() < 4
