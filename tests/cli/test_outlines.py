import json

import numpy as np

from ddps.cli.outlines import VOID, inside, read_outlines


def test_a_rectangle_holds_the_pixels_whose_centres_it_holds():
    mask = inside(np.array([[1.0, 2.0], [4.0, 2.0], [4.0, 3.6], [1.0, 3.6]]), 6, 5)
    expected = np.zeros((5, 6), dtype=bool)
    expected[2:4, 1:4] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_area_of_a_circle():
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    mask = inside(np.stack([50 + 30 * np.cos(angle), 50 + 30 * np.sin(angle)], 1), 100, 100)
    assert abs(mask.sum() / (np.pi * 30**2) - 1) < 0.01


def test_neighbours_share_their_edge_without_gap_or_overlap():
    left = inside(np.array([[0.0, 0.0], [7.3, 0.0], [3.1, 10.0], [0.0, 10.0]]), 12, 10)
    right = inside(np.array([[7.3, 0.0], [12.0, 0.0], [12.0, 10.0], [3.1, 10.0]]), 12, 10)
    assert (left ^ right).all()


def test_outside_the_image_nothing_is_drawn():
    assert not inside(np.array([[-9.0, -9.0], [-1.0, -9.0], [-1.0, -1.0]]), 5, 5).any()


def test_later_polygons_lie_on_top(tmp_path):
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    corner = [[0, 0], [2, 0], [2, 2], [0, 2]]
    polygons = [{"class": "thing", "points": square}, {"class": "void", "points": corner}]
    path = tmp_path / "outlines.json"
    path.write_text(
        json.dumps({"image": "x.png", "size": [6, 4], "classes": ["background", "thing"], "polygons": polygons})
    )
    labels = read_outlines(path).labels()
    assert labels.shape == (4, 6)
    assert (labels[:2, :2] == VOID).all() and (labels[2:, :4] == 1).all() and (labels[:, 4:] == 0).all()
