import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.training.photometric import photometric


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_an_image_stays_an_image(seed):
    image = torch.rand(3, 16, 20, generator=seeded(0))
    image[:, :4], image[:, -4:] = 0, 1
    before = image.clone()
    varied = photometric(image, seeded(seed))
    assert varied.shape == image.shape and varied.isfinite().all()
    assert varied.min() >= 0 and varied.max() <= 1 and torch.equal(image, before)


def test_the_generator_decides_and_nothing_else():
    state = torch.get_rng_state()
    image = torch.rand(3, 16, 16, generator=seeded(0))
    varied = [photometric(image, seeded(seed)) for seed in range(30)]
    assert torch.equal(varied[3], photometric(image, seeded(3)))
    assert sum(not torch.equal(v, image) for v in varied) > 20
    assert torch.equal(torch.get_rng_state(), state)


def test_edges_stay_where_they_are():
    image = torch.zeros(3, 32, 32)
    image[:, :, 16:] = 0.8
    for seed in range(20):
        rows = photometric(image, seeded(seed)).mean((0, 1))
        steps = rows.diff().abs()
        assert steps.max() < 0.05 or 14 <= int(steps.argmax()) <= 16
