from dataclasses import replace

import pytest
import torch

from ddps.diffusion import UniformKernel
from ddps.speed import Case, PaperChains, gumbel_noise, measure_paper

TINY = Case((30, 44), classes=7, steps=3, batch=2, dtype=torch.float32, device=torch.device("cpu"), dim=8)


@pytest.mark.parametrize("alpha_bar", [0.9, 0.3, 0.00001])
def test_both_ways_to_draw_noise_have_one_distribution(alpha_bar):
    torch.manual_seed(0)
    x0 = torch.full((1, 200, 200), 2)
    wanted = UniformKernel(5).marginal(x0[:, :1, :1], alpha_bar).flatten()
    for drawn in (gumbel_noise(x0, alpha_bar, 5), UniformKernel(5).sample(x0, alpha_bar, None)):
        shares = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
        assert (shares - wanted).abs().max() < 0.01


def test_both_chains_give_the_same_labels():
    chains = PaperChains(TINY)
    chains.naive()
    chains.ours()
    assert len(chains.labels["ours"]) == 3 and chains.labels["ours"][0].shape == (2, 8, 11)
    assert chains.agreement() > 99
    chains.labels["ours"][1] += 1
    assert chains.agreement() < 67


def test_the_figures_of_a_case():
    speed = measure_paper(replace(TINY, steps=2), repeats=2)
    assert set(speed.timings) == {"naive", "ours", "prepare", "gumbel noise", "our noise"}
    naive, ours = speed.timings["naive"], speed.timings["ours"]
    assert ours.flops < naive.flops and naive.memory is not None and ours.memory is not None
    assert speed.timings["gumbel noise"].flops is None
    assert speed.peak > 0 and speed.speedup > 0 and speed.speedup_as_released > 0 and speed.agreement > 99
