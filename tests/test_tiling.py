"""Tiles cover every pixel, start where strides fall as in the whole, overlap enough, and their weights are sound."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.tiling import Tile, blend_window, plan_tiles, plan_turns, split

SIZES = st.integers(1, 700)


@settings(max_examples=100, deadline=None)
@given(height=SIZES, width=SIZES, tile=st.integers(64, 256), share=st.floats(0, 0.5))
def test_a_plan(height, width, tile, share):
    overlap = int(tile * share)
    tiles = plan_tiles((height, width), tile, overlap)
    cover, weights = torch.zeros(height, width), torch.zeros(height, width)
    whole = Tile(0, 0, height, width)
    for one in tiles:
        assert tiles[0].height - 16 < one.height <= tiles[0].height
        assert tiles[0].width - 16 < one.width <= tiles[0].width
        assert one.height <= min(tile, height) and one.width <= min(tile, width)
        assert 0 <= one.top <= height - one.height and 0 <= one.left <= width - one.width
        window = blend_window(one, (height, width), overlap)
        assert window.shape == (one.height, one.width) and window.min() > 0 and window.max() <= 1
        cover[one.slices_in(whole)] += 1
        weights[one.slices_in(whole)] += window
    assert cover.min() >= 1 and weights.min() > 0
    assert len(set(tiles)) == len(tiles)
    for starts, side in (
        (sorted({t.top for t in tiles}), tiles[0].height),
        (sorted({t.left for t in tiles}), tiles[0].width),
    ):
        for a, b in pairwise(starts):
            assert a + side - b >= overlap


def test_a_small_image_is_one_tile_with_weight_one():
    assert plan_tiles((50, 70), 128, 32) == [Tile(0, 0, 50, 70)]
    assert (blend_window(Tile(0, 0, 50, 70), (50, 70), 32) == 1).all()


def test_no_more_tiles_than_needed():
    assert len(plan_tiles((128, 128), 128, 32)) == 1
    assert len(plan_tiles((128, 129), 128, 32)) == 2
    assert len(plan_tiles((224, 225), 128, 32)) == 6


def test_tiles_are_no_larger_than_they_have_to_be():
    # three tiles of 128 would do as well, and compute half as much again
    assert {(one.height, one.width) for one in plan_tiles((128, 272), 128, 32)} == {(128, 112)}
    # the last ones end with the image
    assert {(one.height, one.width) for one in plan_tiles((129, 320), 128, 32)} == {(96, 128), (81, 128)}


@given(height=SIZES, width=SIZES, tile=st.integers(64, 256), overlap=st.integers(0, 32))
def test_tiles_start_where_the_strides_of_a_network_over_the_whole_image_fall(height, width, tile, overlap):
    assert all(one.top % 16 == 0 and one.left % 16 == 0 for one in plan_tiles((height, width), tile, overlap))


def test_weights_fall_towards_inner_borders_only():
    window = blend_window(Tile(0, 40, 64, 64), (64, 200), 16)
    assert (window[:, 16:48] == 1).all() and torch.equal(window[0], window[-1])
    assert (window[0, :16].diff() > 0).all() and (window[0, 48:].diff() < 0).all()


@pytest.mark.parametrize("overlap", [1, 7, 16])
def test_ramps_of_neighbours_add_up_to_one(overlap):
    left = blend_window(Tile(0, 0, 8, 64), (8, 128 - overlap), overlap)
    right = blend_window(Tile(0, 64 - overlap, 8, 64), (8, 128 - overlap), overlap)
    torch.testing.assert_close(left[:, 64 - overlap :] + right[:, :overlap], torch.ones(8, overlap))


def test_shared_windows():
    tile = Tile(10, 20, 30, 40)
    assert tile.overlap(Tile(0, 0, 15, 25)) == Tile(10, 20, 5, 5)
    assert tile.overlap(Tile(0, 0, 100, 100)) == tile
    assert tile.overlap(Tile(0, 0, 10, 100)) is None and tile.overlap(Tile(0, 60, 100, 5)) is None
    assert tile.slices_in(Tile(5, 5, 100, 100)) == (slice(5, 35), slice(15, 55))


@settings(max_examples=60, deadline=None)
@given(height=SIZES, width=SIZES, tile=st.integers(64, 256), share=st.floats(0, 0.5))
def test_turns_finish_every_pixel_once_and_no_sooner_than_its_last_tile(height, width, tile, share):
    tiles = plan_tiles((height, width), tile, int(tile * share))
    turns = plan_turns((height, width), tiles)
    cover = torch.zeros(height, width)
    for index, turn in enumerate(turns):
        cover[turn.done.slices_in(Tile(0, 0, height, width))] += 1
        assert not any(turn.done.overlap(later) for later in tiles[index + 1 :])
        assert turn.until == max(i for i, other in enumerate(turns) if other.done.overlap(turn.tile))
    assert [turn.tile for turn in turns] == tiles and (cover == 1).all()


def test_splitting_covers_an_area_once():
    area, cover = Tile(3, 5, 20, 31), torch.zeros(40, 40)
    for window in split(area, 8):
        assert max(window.height, window.width) <= 8
        cover[window.slices_in(Tile(0, 0, 40, 40))] += 1
    assert (cover[3:23, 5:36] == 1).all() and cover.sum() == 20 * 31


def test_a_part_of_a_tiles_weight():
    tile, part = Tile(32, 40, 64, 80), Tile(40, 50, 56, 66)
    whole = blend_window(tile, (200, 200), 16)
    assert torch.equal(blend_window(tile, (200, 200), 16, part), whole[part.slices_in(tile)])
