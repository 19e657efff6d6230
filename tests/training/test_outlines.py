"""Outlines as polygons: traced exactly, simplified within a tolerance, drawn over each other."""

import numpy as np
import pytest

from ddps.training.outlines import draw_polygons, ring_area, simplify, trace


def disc(side: int = 64, radius: float = 20.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (x - side / 2) ** 2 + (y - side / 2) ** 2 < radius**2


def test_the_rings_enclose_exactly_the_region() -> None:
    mask = disc()
    mask[30:34, 30:36] = False  # a hole
    mask[2:5, 50:60] = True  # another piece
    areas = sorted(ring_area(ring) for ring in trace(mask))
    assert len(areas) == 3
    assert areas[0] == -24
    assert areas[1] == 30
    assert sum(areas) == mask.sum()


def test_a_region_that_touches_all_borders_has_the_images_outline() -> None:
    (ring,) = trace(np.ones((3, 5), dtype=bool))
    assert ring_area(ring) == 15
    assert len(simplify(ring, 0.1)) == 4


def test_nothing_has_no_outline() -> None:
    assert trace(np.zeros((4, 4), dtype=bool)) == []


def test_pixels_that_touch_at_a_corner_are_all_enclosed() -> None:
    mask = np.eye(5, dtype=bool)
    assert sum(ring_area(ring) for ring in trace(mask)) == 5


@pytest.mark.parametrize("tolerance", [0.8, 2.0, 5.0])
def test_no_corner_is_left_out_that_is_further_than_the_tolerance(tolerance: float) -> None:
    (ring,) = trace(disc())
    few = simplify(ring, tolerance)
    assert 2 < len(few) < len(ring)
    ends = np.roll(few, -1, 0)
    for point in ring:
        along = ((point - few) * (ends - few)).sum(1) / ((ends - few) ** 2).sum(1)
        nearest = few + along.clip(0, 1)[:, None] * (ends - few)
        assert np.hypot(*(point - nearest).T).min() <= tolerance + 1e-9


def test_polygons_are_near_the_labels_but_not_them() -> None:
    labels = disc().astype(np.int64) * 3
    drawn = draw_polygons(labels, labels, 4.0)
    assert set(np.unique(drawn)) == {0, 3}
    changed = (drawn != labels).mean()
    assert 0 < changed < 0.08
    # a regular region's polygon cuts off, and adds little
    assert (drawn == 3).sum() < (labels == 3).sum()


def test_a_small_region_inside_a_large_one_is_drawn_over_it() -> None:
    labels = np.ones((40, 40), dtype=np.int64)
    labels[10:20, 10:20] = 2
    drawn = draw_polygons(labels, labels, 1.0)
    assert (drawn[11:19, 11:19] == 2).all()
    assert (drawn == 1).sum() > 1400


def test_what_no_polygon_covers_shows_what_is_under_it() -> None:
    labels = np.zeros((32, 32), dtype=np.int64)
    labels[:, 16] = 1  # a line one pixel wide
    under = np.full_like(labels, 7)
    drawn = draw_polygons(labels, under, 30.0)
    assert (drawn == 7).any()
    assert set(np.unique(drawn)) <= {0, 1, 7}
