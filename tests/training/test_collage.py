import pytest
import torch
from torch import Tensor

from ddps.training.collage import SHAPES, collage


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.__name__)
def test_shapes_are_finite_distances_that_at_times_cover_something(shape):
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    shares = []
    for seed in range(30):
        inside = shape(rows, columns, seeded(seed))
        assert inside.shape == (64, 64) and inside.isfinite().all()
        shares.append(float((inside > 0).float().mean()))
    assert 0 < sum(shares) / 30 < 0.7


def paste(seed: int, target: Tensor) -> tuple[Tensor, Tensor]:
    return collage(torch.zeros(3, 64, 64), target, lambda: torch.ones(3, 64, 64), 255, seeded(seed))


def test_regions_are_classes_of_their_own_and_hold_the_other_image():
    target = torch.zeros(64, 64, dtype=torch.int64)
    target[:8] = 255
    for seed in range(20):
        image, labels = paste(seed, target)
        assert image.min() >= 0 and image.max() <= 1
        assert set(labels.unique().tolist()) <= {0, 255, *range(200, 206)}
        assert torch.equal(labels == 255, target == 255)
        pasted, ground = (labels >= 200) & (labels != 255), labels == 0
        assert (image[:, pasted] >= 0.5).all()
        assert not ground.any() or image[:, ground].mean() < 0.3


def test_the_generator_decides_and_the_inputs_stay():
    target = torch.zeros(64, 64, dtype=torch.int64)
    (image_a, labels_a), (image_b, labels_b), (_, labels_c) = (paste(seed, target) for seed in (1, 1, 2))
    assert torch.equal(image_a, image_b) and torch.equal(labels_a, labels_b) and not torch.equal(labels_a, labels_c)
    assert (target == 0).all()
