"""Tiles cover every pixel, start where strides fall as in the whole, overlap enough, and their weights are sound."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.tiling import Tile, blend_window, chain_seed, plan_tiles, plan_turns, split

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


@pytest.mark.parametrize(("tile", "overlap"), [(70, 60), (70, 64), (65, 64), (20, 18), (17, 16), (31, 2)])
def test_tiles_too_small_for_strides_still_cover(tile, overlap):
    tiles = plan_tiles((100, 130), tile, overlap)
    cover = torch.zeros(100, 130)
    for one in tiles:
        cover[one.slices_in(Tile(0, 0, 100, 130))] += 1
        assert max(one.height, one.width) <= tile
    assert cover.min() >= 1
    for starts, side in (({one.top for one in tiles}, 100), ({one.left for one in tiles}, 130)):
        assert all(b - a <= tile - overlap for a, b in pairwise(sorted(starts))) and max(starts) < side


def test_weights_fall_in_both_directions_and_from_the_first_pixel_on():
    window = blend_window(Tile(1, 1, 40, 40), (90, 90), 8)
    assert torch.equal(window, window.T)
    for edge in (window[:8, 20], window[20, :8], window[32:, 20].flip(0), window[20, 32:].flip(0)):
        torch.testing.assert_close(edge, (torch.arange(8) + 0.5) / 8)
    # at the image's own border they do not
    assert (blend_window(Tile(0, 0, 40, 40), (40, 90), 8)[:, :32] == 1).all()
    assert (blend_window(Tile(50, 50, 40, 40), (90, 90), 8)[8:, 8:] == 1).all()


def test_both_slopes_of_a_tile_narrower_than_two_overlaps_count():
    row = blend_window(Tile(0, 20, 1, 12), (1, 60), 8)[0]
    slope = torch.cat([(torch.arange(8) + 0.5) / 8, torch.ones(4)])
    torch.testing.assert_close(row, slope * slope.flip(0))


def test_seeds_of_chains_are_what_they_have_always_been():
    """Another number here would give other answers for the same seed than the version before."""
    tile = Tile(16, 32, 8, 8)
    assert chain_seed(0, 0, tile) == 2311959553606579209
    assert chain_seed(7, 1, tile) == 6166612998457540773
    assert chain_seed(-1, 1, tile) == chain_seed(2**63 - 1, 1, tile)
    assert chain_seed(2**63 + 7, 1, tile) == chain_seed(7, 1, tile) == chain_seed(7, 1, Tile(16, 32, 9, 9))


def test_seeds_of_chains_differ_and_fit_a_generator():
    places = [Tile(top, left, 8, 8) for top in range(0, 160, 16) for left in range(0, 160, 16)]
    seeds = {chain_seed(seed, sample, tile) for seed in (0, 1, 2**62) for sample in range(3) for tile in places}
    assert len(seeds) == 900 and all(0 <= seed < 2**63 for seed in seeds)
