import numpy as np
import pytest
import torch

from ddps import DDPSRefiner, InputError
from ddps.stacks import refine_masks

SIZE = (96, 128)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((*SIZE, 3), dtype=np.float32)


@pytest.fixture
def masks():
    """Two that touch, one far from both, all as rough as a tiny network may want to change."""
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 10:40, 10:30], masks[1, 10:40, 30:50], masks[2, 60:85, 90:120] = True, True, True
    return masks


@pytest.fixture(scope="module")
def universal():
    return DDPSRefiner.from_pretrained(device="cpu", dtype=torch.float32)


def disc(row, column, radius, size=SIZE):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def photo_of(shape, seed=0):
    """Bright things on a dark ground, a little blurred, with noise."""
    soft = torch.nn.functional.avg_pool2d(torch.from_numpy(shape[None].astype(np.float32)), 3, 1, 1)[0].numpy()
    grey = 0.2 + 0.5 * soft + 0.03 * np.random.default_rng(seed).normal(size=shape.shape)
    return np.repeat(grey[..., None], 3, 2).clip(0, 1).astype(np.float32)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_order_shapes_and_types(tiny_refiner, image, masks):
    before = masks.copy()
    stack = refine_masks(tiny_refiner, image, masks)
    np.testing.assert_array_equal(masks, before)
    assert stack.masks.shape == masks.shape and stack.masks.dtype == bool and len(stack) == 3
    assert stack.probs.shape == masks.shape and stack.probs.dtype == np.float32
    assert stack.change.shape == stack.uncertainty.shape == (3,) and stack.change.max() > 0
    for index in range(3):
        assert iou(stack.masks[index], masks[index]) == pytest.approx(1 - stack.change[index])
        assert iou(stack.masks[index], masks[index]) > 0.3
    turned = refine_masks(tiny_refiner, image, masks[::-1])
    np.testing.assert_array_equal(turned.masks[::-1], stack.masks)


def test_a_mask_does_not_see_what_is_far_away(tiny_refiner, image, masks):
    np.testing.assert_array_equal(
        refine_masks(tiny_refiner, image, masks).masks[2], refine_masks(tiny_refiner, image, masks[2:]).masks[0]
    )


def test_only_windows_are_refined(tiny_refiner, image, masks):
    seen = []

    class Watched(DDPSRefiner):
        def refine(self, image, *arguments, **keywords):
            seen.append(tuple(image.shape[-2:]))
            return super().refine(image, *arguments, **keywords)

    refine_masks(Watched(tiny_refiner.config, tiny_refiner.network, "cpu"), image, masks)
    assert seen == [(56, 46), (56, 52), (52, 54)]  # 16 pixels around a mask, up to the image's border


def test_none_empty_and_full(tiny_refiner, image, masks):
    nothing = refine_masks(tiny_refiner, image, masks[:0])
    assert nothing.masks.shape == (0, *SIZE) == nothing.probs.shape and nothing.change.shape == (0,)
    assert refine_masks(tiny_refiner, image, []).masks.shape == (0, *SIZE)
    masks[0], masks[1] = False, True
    for given in (masks, 4.0 * masks - 2):
        stack = refine_masks(tiny_refiner, image, given)
        assert not stack.masks[0].any() and stack.masks[1].all()
        assert stack.change[0] == stack.change[1] == 0 and stack.change[2] > 0
        assert stack.probs[0].max() < 0.5 < stack.probs[1].min()


def test_masks_that_do_not_overlap_stay_apart(tiny_refiner, image):
    masks = np.zeros((6, *SIZE), np.uint8)
    for index in range(6):
        masks[index, 10:60, 10 + 12 * index : 22 + 12 * index] = 255
    stack = refine_masks(tiny_refiner, image, masks)
    assert stack.masks.sum(0).max() == 1 and stack.masks.any((1, 2)).all()
    alone = np.stack([refine_masks(tiny_refiner, image, mask[None]).masks[0] for mask in masks])
    assert alone.sum(0).max() > 1  # else nothing was to be parted


def test_overlapping_masks_stay_whole(universal):
    whole, part = disc(48, 60, 30), disc(48, 60, 10)
    picture = photo_of(whole) + 0.3 * part[..., None].astype(np.float32) * (1 - photo_of(whole))
    stack = refine_masks(universal, picture, np.stack([whole, part]))
    assert iou(stack.masks[0], whole) > 0.95 and iou(stack.masks[1], part) > 0.85


def test_a_mask_that_the_network_would_drop_is_kept(image, masks, tiny_refiner):
    class Emptying(DDPSRefiner):
        def refine(self, *arguments, **keywords):
            out = super().refine(*arguments, **keywords)
            out.labels[:] = 0
            return out

    stack = refine_masks(Emptying(tiny_refiner.config, tiny_refiner.network, "cpu"), image, masks)
    np.testing.assert_array_equal(stack.masks, masks)


def test_logits_of_a_quarter_of_the_size(tiny_refiner, image, masks):
    coarse = np.where(masks[:, 2::4, 2::4], 3.0, -3.0)
    stack = refine_masks(tiny_refiner, image, coarse)
    assert stack.masks.shape == masks.shape and all(iou(*pair) > 0.3 for pair in zip(stack.masks, masks, strict=True))
    probs = 1 / (1 + np.exp(-coarse))
    again = refine_masks(tiny_refiner, image, probs, kind="probs")
    # resized as probabilities instead of as logits: a little different between the pixels
    assert (again.masks != stack.masks).mean() < 0.02
    np.testing.assert_array_equal(refine_masks(tiny_refiner, image, coarse[:, None]).masks, stack.masks)


def test_forms_of_the_same_masks(tiny_refiner, image, masks):
    expected = refine_masks(tiny_refiner, image, masks).masks
    for same in (masks.astype(np.uint8), masks * np.uint8(255), masks.astype(np.float32), list(masks), masks[:, None]):
        np.testing.assert_array_equal(refine_masks(tiny_refiner, image, same).masks, expected)
    as_torch = refine_masks(tiny_refiner, image, torch.from_numpy(masks))
    assert all(isinstance(value, torch.Tensor) for value in (as_torch.masks, as_torch.probs, as_torch.change))
    np.testing.assert_array_equal(as_torch.masks.numpy(), expected)


def test_labels_and_files(tiny_refiner, image, masks, tmp_path):
    stack = refine_masks(tiny_refiner, image, masks)
    labels = stack.labels()
    for index in range(3):
        np.testing.assert_array_equal(labels == index + 1, stack.masks[index])
    np.testing.assert_array_equal(np.load(stack.save(tmp_path / "a.npy")), stack.masks)
    with np.load(stack.save(tmp_path / "a.npz")) as arrays:
        assert sorted(arrays.files) == ["change", "masks", "uncertainty"]
    with pytest.raises(InputError, match="does not exist"):
        stack.save(tmp_path / "a.npy")
    with pytest.raises(InputError, match="npy or .npz"):
        stack.save(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros(SIZE, bool), r"masks\[None\]"),
        (np.zeros((2, 3, *SIZE), bool), "shape"),
        (np.zeros((2, 0, 5), bool), "shape"),
        (np.full((2, 4, 4), 3), "0 and 1"),
        (np.arange(32).reshape(2, 4, 4), "0 and 1"),
        (np.full((2, 4, 4), 0.5), "kind="),
        (np.full((2, 4, 4), np.nan), "finite"),
        (np.full((2, 4, 4), "a"), "numbers"),
        ("masks.npy", "numpy array"),
        ([np.zeros((4, 4), bool), np.zeros((4, 5), bool)], "one size"),
    ],
)
def test_bad_stacks(tiny_refiner, image, bad, says):
    with pytest.raises(InputError, match=says):
        refine_masks(tiny_refiner, image, bad)


def test_kinds_that_do_not_fit(tiny_refiner, image):
    for kind, values in (("masks", [[[-1.0, 2.0]]]), ("probs", [[[-1.0, 2.0]]]), ("labels", [[[0.0, 1.0]]])):
        with pytest.raises(InputError):
            refine_masks(tiny_refiner, image, np.array(values), kind=kind)


def test_weights_of_their_own_classes(tiny_model_of_5_dir, image, masks):
    with pytest.raises(InputError, match="any number of classes"):
        refine_masks(DDPSRefiner.from_pretrained(tiny_model_of_5_dir, device="cpu"), image, masks)


def test_a_mask_that_its_neighbours_take_whole_is_kept(tiny_refiner, image):
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 20:60, 20:60], masks[2, 20:60, 61:90] = True, True
    masks[1, 20:60, 60] = True

    class Greedy(DDPSRefiner):
        def refine(self, image, labels, **keywords):
            out = super().refine(image, labels, **keywords)
            thin = int((labels == 1).sum()) <= 40
            out.labels[:] = 1
            out.probs[1] = 0.6 if thin else 0.9
            return out

    stack = refine_masks(Greedy(tiny_refiner.config, tiny_refiner.network, "cpu"), image, masks)
    np.testing.assert_array_equal(stack.masks[1], masks[1])
    assert stack.masks.sum(0).max() == 1 and stack.masks.any((1, 2)).all()


def test_masks_larger_than_the_image(tiny_refiner):
    masks = np.zeros((2, 300, 300), bool)
    masks[0, 7, 7], masks[1, 100:200, 50:250] = True, True
    stack = refine_masks(tiny_refiner, np.zeros((30, 30, 3), np.uint8), masks)
    assert stack.masks.shape == (2, 30, 30) and stack.masks[1].any() and np.isfinite(stack.uncertainty).all()


@pytest.mark.parametrize(("many", "few_change"), [(False, False), (True, True)])
def test_an_exact_stack_stays_but_for_what_is_far_off(tiny_refiner, image, many, few_change):
    """The network widens masks 12 pixels wide by a pixel, those 11 wide by three, and leaves those 10 wide."""
    widths = [12, *((12 if many else 10,) * 7), 10, 11]
    masks = np.zeros((10, *SIZE), bool)
    for index, width in enumerate(widths):
        row, column = 10 + 40 * (index // 5), 2 + 25 * (index % 5)
        masks[index, row : row + 30, column : column + width] = True

    class Widening(DDPSRefiner):
        def refine(self, image, labels, **keywords):
            out = super().refine(image, labels, **keywords)
            mask = (labels == 1).numpy()
            most = {10: 0, 11: 3, 12: 1}[int(mask.any(0).sum())]
            for _ in range(most):
                mask = np.pad(mask, ((1, 1), (1, 1)))
                mask = mask[1:-1, 1:-1] | mask[:-2, 1:-1] | mask[2:, 1:-1] | mask[1:-1, :-2] | mask[1:-1, 2:]
            out.labels[:] = torch.from_numpy(mask.astype(np.int64))
            return out

    change = refine_masks(Widening(tiny_refiner.config, tiny_refiner.network, "cpu"), image, masks).change
    assert change[9] > 0.3 and bool(change[0] > 0.1) == few_change and change[8] == 0


class TestWithTheWeights:
    def test_a_crowd_that_looks_alike_is_told_apart(self, universal):
        """Alone, a generous mask grows into its neighbours: mean IoU 0.66 instead of 0.93."""
        centres = [(20 + 14 * row, 20 + 14 * column) for row in range(4) for column in range(6)]
        truth, generous = (np.stack([disc(*centre, radius) for centre in centres]) for radius in (6, 9))
        stack = refine_masks(universal, photo_of(truth.any(0)), generous)
        assert np.mean([iou(*pair) for pair in zip(generous, truth, strict=True)]) < 0.5
        assert np.mean([iou(*pair) for pair in zip(stack.masks, truth, strict=True)]) > 0.85

    def test_holes_and_thin_parts_stay(self, universal):
        ring = disc(48, 40, 20) & ~disc(48, 40, 4)
        ring[46:49, 55:120] = True
        stack = refine_masks(universal, photo_of(ring), ring[None])
        assert not stack.masks[0][disc(48, 40, 2)].any()
        assert stack.masks[0][46:49, 64:116].mean() > 0.9
        assert iou(stack.masks[0], ring) > 0.9
