"""Categorical draws: frequencies, impossible states, one number per pixel."""

import torch

from ddps.diffusion import draws
from ddps.diffusion.draws import draw_categorical, draw_classes


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_categorical_frequencies_need_no_normalised_input():
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 6.0])
    drawn = draw_categorical(weights[None, :, None, None].expand(1, 5, 200, 200), [generator(0)])
    share = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    torch.testing.assert_close(share, weights / 10, rtol=0, atol=0.015)
    assert share[0] == share[2] == 0


def test_the_largest_uniform_number_never_draws_an_impossible_state(monkeypatch):
    largest = 1 - 2**-24
    monkeypatch.setattr(draws, "draw_uniform", lambda shape, *_: torch.full(shape, largest))
    probs = torch.rand(1, 12, 30, 30, generator=generator(0)) * 1e-3
    probs[:, 9:] = 0
    assert (draw_categorical(probs, None) < 9).all()
    monkeypatch.setattr(draws, "draw_uniform", lambda shape, *_: torch.zeros(shape))
    probs[:, :4] = 0
    assert (draw_categorical(probs, None) == 4).all()


def test_one_number_per_pixel_whatever_the_number_of_classes():
    few, many = generator(5), generator(5)
    draw_categorical(torch.ones(1, 2, 6, 6), [few])
    draw_categorical(torch.ones(1, 150, 6, 6), [many])
    assert torch.equal(few.get_state(), many.get_state())


def test_classes_without_generators_follow_the_global_one():
    torch.manual_seed(3)
    first = draw_classes([4, 2], (2, 8, 8), None, "cpu")
    torch.manual_seed(3)
    assert torch.equal(first, draw_classes([4, 2], (2, 8, 8), None, "cpu"))
    assert first[0].max() == 3 and first[1].max() == 1
