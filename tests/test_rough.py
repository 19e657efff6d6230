import numpy as np
import pytest

from ddps.predictions import load_prediction
from ddps.rough import dilated, fill, import_cv2, polygonised, roughen, strided


@pytest.fixture
def truth():
    """A disc and a bar on a background, with a void strip at the top."""
    rows, columns = np.mgrid[:90, :120]
    mask = np.zeros((90, 120), dtype=np.int64)
    mask[(rows - 45) ** 2 + (columns - 40) ** 2 < 30**2] = 1
    mask[20:80, 90:97] = 2
    mask[:4] = 255
    return mask


def test_perfect_is_a_copy(truth):
    answer = roughen(truth, "perfect")
    assert np.array_equal(answer, truth) and answer is not truth


@pytest.mark.parametrize("kind", ["stride8", "stride16", "dilate5", "polygon"])
def test_rough_masks_are_nearly_right_and_leave_nothing_out(truth, kind):
    if kind == "polygon":
        pytest.importorskip("cv2", reason="polygons are drawn by OpenCV, of the extra `benchmark`")
    before = truth.copy()
    labels = load_prediction(roughen(truth, kind), truth.shape, "labels", num_classes=3).argmax().numpy()
    assert np.array_equal(truth, before)
    assert set(np.unique(labels)) <= {0, 1, 2}
    wrong = (labels != truth)[truth != 255].mean()
    assert 0.002 < wrong < 0.2


def test_fill_takes_the_nearest_label():
    labels = np.array([[1, 255, 255, 255, 2], [1, 255, 255, 2, 2]])
    filled = fill(labels, labels == 255)
    assert filled.tolist() in ([[1, 1, 1, 2, 2], [1, 1, 2, 2, 2]], [[1, 1, 2, 2, 2], [1, 1, 2, 2, 2]])


def test_fill_of_nothing_known_changes_nothing():
    labels = np.full((3, 4), 255)
    assert np.array_equal(fill(labels, labels == 255), labels)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (64, 48), (61, 83)])
def test_strided_takes_the_class_at_the_centre_of_each_cell(size):
    mask = np.arange(size[0] * size[1]).reshape(size)
    coarse = strided(mask, 8)
    assert coarse.shape == tuple(max(1, round(side / 8)) for side in size)
    row, column = (int(0.5 * side / count) for side, count in zip(size, coarse.shape, strict=True))
    assert coarse[0, 0] == mask[row, column]


def test_dilated_grows_by_a_disc():
    mask = np.zeros((31, 31), dtype=np.int64)
    mask[15, 15] = 1
    rows, columns = np.mgrid[:31, :31] - 15
    disc = rows**2 + columns**2 <= 25
    # The background is grown, too: over the single pixel when it comes last.
    answers = [dilated(mask, 5, 255, np.random.default_rng(seed)) for seed in range(8)]
    found = {tuple(answer.ravel()) for answer in answers}
    assert found == {tuple(disc.astype(int).ravel()), tuple(np.zeros(31 * 31, dtype=int))}


def test_dilated_at_the_border_of_the_image():
    mask = np.zeros((12, 9), dtype=np.int64)
    mask[0, 0] = 1
    answers = [dilated(mask, 3, 255, np.random.default_rng(seed)) for seed in range(8)]
    largest = max(answers, key=np.sum)
    assert largest[3, 0] == 1 and largest[0, 3] == 1 and largest[4, 0] == 0 and largest[0, 4] == 0
    assert largest.sum() == sum(row**2 + column**2 <= 9 for row in range(4) for column in range(4))


def test_the_seed_decides_the_order(truth):
    same = [roughen(truth, "dilate5", seed=3) for _ in range(2)]
    assert np.array_equal(*same)
    assert len({roughen(truth, "dilate5", seed=seed).tobytes() for seed in range(8)}) > 1


class TestPolygons:
    @pytest.fixture(autouse=True)
    def needs_opencv(self):
        pytest.importorskip("cv2", reason="polygons are drawn by OpenCV, of the extra `benchmark`")

    def test_without_tolerance_nothing_changes(self, truth):
        whole = fill(truth, truth == 255)
        assert np.array_equal(polygonised(whole, tolerance=0), whole)

    def test_outlines_stay_within_the_tolerance(self, truth):
        whole = fill(truth, truth == 255)
        rough = polygonised(whole, tolerance=0.03)
        moved = np.argwhere(rough != whole)
        assert len(moved)
        near = dilated(np.where(whole == 1, 1, 255), 5, 255, np.random.default_rng(0)) == 1
        near &= dilated(np.where(whole == 0, 0, 255), 5, 255, np.random.default_rng(0)) == 0
        assert near[tuple(moved.T)].all()  # 0.03 of the diagonal are 4.5 px

    def test_what_lies_in_a_hole_and_lines_of_one_pixel_survive(self):
        mask = np.zeros((60, 60), dtype=np.int64)
        mask[5:55, 5:55] = 1
        mask[20:40, 20:40] = 2
        mask[28:32, 28:32] = 1
        mask[58] = 3
        rough = polygonised(mask)
        assert np.array_equal(rough, mask)

    def test_ids_beyond_a_byte(self):
        mask = np.full((20, 20), 300)
        mask[5:15, 5:15] = 40000
        assert np.array_equal(polygonised(mask), mask)

    def test_a_mask_of_void_only_stays(self):
        mask = np.full((5, 6), 255)
        assert np.array_equal(roughen(mask, "polygon"), mask)


def test_missing_opencv_is_named(monkeypatch):
    import sys

    from ddps.errors import InputError

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-contrib-python-headless"):
        import_cv2("--rough polygon")
