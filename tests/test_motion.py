import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddps.motion import Motion, blurred, find_motion, unchanged

SIZE = (120, 160)


def scene(size=(150, 200), seed=0):
    """(3, H, W) smooth texture."""
    noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.8 * blurred(noise, 2.0)).clamp(0, 1)


def view(picture, down=0.0, right=0.0, zoom=0.0, noise=0.0, seed=0):
    """The middle of a picture, moved."""
    rows = (torch.arange(SIZE[0]) - (SIZE[0] - 1) / 2) * (1 + zoom) + (picture.shape[1] - 1) / 2 + down
    columns = (torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2) * (1 + zoom) + (picture.shape[2] - 1) / 2 + right
    y, x = torch.meshgrid(
        2 * (rows + 0.5) / picture.shape[1] - 1, 2 * (columns + 0.5) / picture.shape[2] - 1, indexing="ij"
    )
    seen = F.grid_sample(picture[None], torch.stack([x, y], -1)[None], "bicubic", align_corners=False)[0]
    return (seen + noise * torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


@pytest.mark.parametrize("move", [(0.4, -0.7, 0), (3.3, 6.8, 0), (-9.0, 0.0, 0), (0.0, 0.0, 0.01), (1.2, -0.5, -0.02)])
def test_finds_what_the_camera_did(move):
    picture = scene()
    before, after = view(picture, noise=0.01, seed=1), view(picture, *move, noise=0.01, seed=2)
    motion = find_motion(after, before)
    assert (motion.down, motion.right) == pytest.approx(move[:2], abs=0.1)
    assert motion.zoom == pytest.approx(move[2], abs=1e-3) and motion.turn == pytest.approx(0, abs=1e-3)
    rows, columns = (axis[8:-8, 8:-8] for axis in motion.origins(*SIZE))
    assert float((motion.carry(before) - after)[:, 16:-16, 16:-16].abs().mean()) < 0.02
    assert rows.shape == columns.shape and float(unchanged(after, before, motion)[20:-20, 20:-20].mean()) > 0.9


def test_at_rest_nothing_is_resampled():
    picture = scene()
    before, after = view(picture, noise=0.02, seed=1), view(picture, noise=0.02, seed=2)
    assert find_motion(after, before).still
    assert Motion().carry(before) is before
    assert float(unchanged(after, before, Motion()).min()) > 0.5


def test_a_new_thing_is_a_change_and_does_not_move_the_camera():
    picture = scene()
    before, after = view(picture, noise=0.01, seed=1), view(picture, noise=0.01, seed=2)
    after[:, 40:80, 30:60] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    motion = find_motion(after, before)
    assert motion.still
    same = unchanged(after, before, motion)
    assert float(same[42:78, 32:58].max()) < 0.5 and float(same[:, 75:].min()) > 0.5


def test_another_scene_is_neither_moved_nor_unchanged():
    before, after = view(scene(seed=0)), view(scene(seed=5))
    motion = find_motion(after, before)
    assert motion.still
    assert float(unchanged(after, before, motion).mean()) < 0.2


def test_what_comes_into_view_is_new():
    picture = scene()
    before, after = view(picture), view(picture, right=6.0)
    motion = find_motion(after, before)
    assert not unchanged(after, before, motion)[:, -5:].any()
    np.testing.assert_array_equal(motion.inside(*SIZE)[0, -5:], False)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (15, 15), (16, 16), (17, 300)])
def test_small_frames(size):
    frame = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    motion = find_motion(frame, frame)
    assert motion.still and unchanged(frame, frame, motion).shape == size
    flat = torch.full((3, *size), 0.5)
    assert find_motion(flat, flat).still and bool((unchanged(flat, flat, Motion()) == 1).all())


def test_a_threshold_of_ones_own():
    before = torch.full((3, 40, 40), 0.5)
    assert bool((unchanged(before + 0.05, before, Motion(), threshold=0.1) == 1).all())
    assert not unchanged(before + 0.05, before, Motion(), threshold=0.02).any()
