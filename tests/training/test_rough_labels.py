"""Rough label maps: one-hot, a function of the generator alone, wrong near outlines and nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddps.training import rough_labels as rough
from ddps.training.corruption import outline_distance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discs(size: int = 96) -> Tensor:
    """Three one-hot classes: a ground, a large disc and a thin pole."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    labels = ((rows - size // 2) ** 2 + (columns - size // 2) ** 2 < (size // 3) ** 2).long()
    labels[:, 5:8] = 2
    return F.one_hot(labels, 3).permute(2, 0, 1).float()


def share_wrong(labels: Tensor, truth: Tensor) -> float:
    return float((labels.argmax(0) != truth.argmax(0)).float().mean())


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**40), slots=st.integers(1, 6), side=st.sampled_from([1, 17, 40]))
def test_answers_are_one_hot(seed, slots, side):
    truth = F.one_hot(torch.randint(slots, (side, 24), generator=seeded(seed)), slots).permute(2, 0, 1).float()
    before = truth.clone()
    labels = rough.rough_labels(truth, seeded(seed))
    assert labels.shape == truth.shape and torch.equal(truth, before)
    assert set(labels.unique().tolist()) <= {0.0, 1.0} and bool((labels.sum(0) == 1).all())


def test_some_are_perfect_and_the_rest_wrong_near_outlines():
    truth = discs()
    answers = [rough.rough_labels(truth, seeded(seed)) for seed in range(150)]
    wrong = torch.tensor([share_wrong(one, truth) for one in answers])
    assert 0.1 < float((wrong == 0).float().mean()) < 0.4
    assert 0.005 < float(wrong.median()) < 0.15 and float(wrong.max()) < 0.5
    deep = outline_distance(truth.argmax(0), 30) >= 30
    assert all(bool((one.argmax(0) == truth.argmax(0))[deep].all()) for one in answers)


def test_the_generator_decides():
    truth = discs()
    a, b, c = (rough.rough_labels(truth, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_blocks_are_of_one_class_each():
    labels = rough.blocks(discs(), seeded(1)).argmax(0)
    changes = (labels[:, 1:] != labels[:, :-1]).any(0)
    positions = changes.nonzero()[:, 0]
    assert 0 < len(positions) < 32 and int((positions[1:] - positions[:-1]).min()) >= 3


def test_a_brush_grows_and_never_leaves_gaps():
    truth = discs()
    areas = [rough.brush(truth, seeded(seed)).sum((1, 2)) for seed in range(30)]
    pole = torch.stack(areas)[:, 2] / truth[2].sum()
    assert float(pole.max()) > 2 and bool((torch.stack(areas).sum(1) == truth[0].numel()).all())


@pytest.mark.parametrize("kind", sorted({kind.__name__ for kind in rough.KINDS}))
def test_every_kind_makes_mistakes(kind):
    truth = discs()
    wrong = [share_wrong(getattr(rough, kind)(truth, seeded(seed)), truth) for seed in range(12)]
    assert max(wrong) > 0.01 and min(wrong) < 0.2
