"""The class-agnostic denoiser: identity when untrained, equivariance, padding, and its pieces on their own."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ddps.config import LogitsNetwork
from ddps.models import strips
from ddps.models.fold import folded
from ddps.models.slot_unet import (
    PADDING,
    SlotUNet,
    bilinear_log_weights,
    channels_last,
    convex_upsample,
    log_odds_against_best,
    sinusoidal,
)

TINY = LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6))


def untrained() -> SlotUNet:
    torch.manual_seed(0)
    return SlotUNet(TINY).eval().requires_grad_(False)


def noisy() -> SlotUNet:
    """Random weights everywhere: untrained, heads and residual branches are zero and would hide faults."""
    network = untrained()
    for parameter in network.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


def inputs(batch: int = 2, slots: int = 4, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(slots)
    image = torch.rand(batch, 3, height, width, generator=generator)
    probs = (2 * torch.randn(batch, slots, height, width, generator=generator)).softmax(1)
    mask = torch.randint(slots, (batch, height // 2, width // 2), generator=generator)
    return image, probs, mask


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal but for the order of float32 sums: to 1e-5 of the largest logit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))


def smooth(batch: int = 2, slots: int = 4, height: int = 32, width: int = 48) -> Tensor:
    coarse = 2 * torch.randn(batch, slots, height // 8, width // 8, generator=torch.Generator().manual_seed(7))
    return F.interpolate(coarse, (height, width), mode="bilinear").softmax(1)


@pytest.mark.parametrize("slots", [2, 5])
def test_untrained_it_returns_the_segmentors_answer(slots):
    image, _, mask = inputs(slots=slots)
    probs = smooth(slots=slots)
    network = untrained()
    answer = network(mask, 3, network.condition(image, probs)).softmax(1)
    assert (answer - probs).abs().max() < 5e-3


def test_with_random_weights_it_answers_something_else():
    image, _, mask = inputs()
    probs, network = smooth(), noisy()
    assert (network(mask, 3, network.condition(image, probs)).softmax(1) - probs).abs().max() > 0.1


@pytest.mark.parametrize("slots", [2, 3, 6])
def test_permuting_the_slots_permutes_the_logits(slots):
    image, probs, mask = inputs(slots=slots)
    network = noisy()
    order = torch.randperm(slots, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(order, torch.arange(slots))
    logits = network(mask, 2, network.condition(image, probs))
    permuted = network(order.argsort()[mask], 2, network.condition(image, probs[:, order]))
    assert_same(permuted, logits[:, order])


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_any_number_of_slots(slots):
    image, probs, mask = inputs(slots=slots)
    network = noisy()
    logits = network(mask, 0, network.condition(image, probs))
    assert logits.shape == probs.shape and logits.isfinite().all()


def test_padding_slots_change_nothing_and_get_nothing():
    network = noisy()
    image, probs, mask = inputs(batch=1, slots=3)
    other_image, other_probs, other_mask = inputs(batch=1, slots=5)
    alone = network(mask, 4, network.condition(image, probs))
    condition = network.condition(
        torch.cat([image, other_image]),
        torch.cat([F.pad(probs, (0, 0, 0, 0, 0, 2)), other_probs]),
        torch.tensor([[True] * 3 + [False] * 2, [True] * 5]),
    )
    together = network(torch.cat([mask, other_mask]), 4, condition)
    assert_same(together[:1, :3], alone)
    other_alone = network(other_mask, 4, network.condition(other_image, other_probs))
    assert_same(together[1:], other_alone)
    assert (together[0, 3:] == PADDING).all() and (together.softmax(1)[0, 3:] == 0).all()


def test_with_nothing_padded_the_validity_mask_changes_nothing():
    image, probs, mask = inputs(slots=3)
    network = noisy()
    without = network(mask, 4, network.condition(image, probs))
    with_mask = network(mask, 4, network.condition(image, probs, torch.ones(2, 3, dtype=torch.bool)))
    assert_same(with_mask, without)


def test_images_of_a_batch_do_not_see_each_other():
    image, probs, mask = inputs(batch=3)
    network = noisy()
    together = network(mask, 5, network.condition(image, probs))
    for b in range(3):
        alone = network(mask[b : b + 1], 5, network.condition(image[b : b + 1], probs[b : b + 1]))
        assert_same(together[b : b + 1], alone)


def test_a_time_per_image_and_one_time_agree():
    image, probs, mask = inputs()
    network = noisy()
    condition = network.condition(image, probs)
    each = network(mask, torch.tensor([1, 17]), condition)
    for b, i in enumerate((1, 17)):
        assert_same(each[b], network(mask, i, condition)[b])


def test_image_mask_and_time_all_matter():
    image, probs, mask = inputs()
    network = noisy()
    condition = network.condition(image, probs)
    logits = network(mask, 3, condition)
    for other in (
        network(mask, 3, network.condition(1 - image, probs)),
        network((mask + 1) % 4, 3, condition),
        network(mask, 19, condition),
    ):
        assert (other - logits).abs().max() > 1e-3


def test_a_masked_state_shows_in_no_plane():
    image, probs, _ = inputs(slots=3)
    network = noisy()
    condition = network.condition(image, probs)
    masked = torch.full((2, 16, 24), 3)
    logits = network(masked, 0, condition)
    assert logits.isfinite().all()
    assert (logits - network(torch.zeros_like(masked), 0, condition)).abs().max() > 1e-3


def test_forward_is_denoise_then_finish():
    image, probs, mask = inputs()
    network = noisy()
    condition = network.condition(image, probs)
    denoised = network.denoise(mask, 3, condition)
    assert denoised.logits.shape == (2, 4, 16, 24)
    assert torch.equal(network.finish(denoised, condition), network(mask, 3, condition))


def test_the_loss_reaches_every_parameter():
    image, probs, mask = inputs()
    network = noisy().train().requires_grad_(True)
    network(mask, 3, network.condition(image, probs)).softmax(1).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("levels", [2, 3])
def test_fewer_levels(levels):
    config = LogitsNetwork(image_widths=(8,) * levels, slot_widths=(4,) * levels)
    image, probs, mask = inputs(height=config.stride, width=2 * config.stride)
    network = SlotUNet(config).eval()
    assert network(mask, 0, network.condition(image, probs)).shape == probs.shape


def test_channels_last_changes_the_layout_only():
    image, probs, mask = inputs()
    plain, laid_out = noisy(), channels_last(noisy())
    assert laid_out.embed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(laid_out(mask, 3, laid_out.condition(image, probs)), plain(mask, 3, plain.condition(image, probs)))


def test_log_odds_are_against_the_best_other_slot():
    log_probs = torch.tensor([0.7, 0.2, 0.1]).log()[None, :, None, None]
    wanted = torch.tensor([0.7 / 0.2, 0.2 / 0.7, 0.1 / 0.7]).log()
    torch.testing.assert_close(log_odds_against_best(log_probs)[0, :, 0, 0], wanted)
    tie = torch.tensor([0.5, 0.5]).log()[None, :, None, None]
    assert (log_odds_against_best(tie) == 0).all()


def test_time_embedding_tells_every_step_apart():
    embedded = sinusoidal(torch.arange(100), 32)
    distances = torch.cdist(embedded, embedded) + torch.eye(100)
    assert embedded.shape == (100, 32) and distances.min() > 1e-2


def test_convex_upsampling_starts_as_bilinear_upsampling():
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    weights = bilinear_log_weights().softmax(1)[None, :, :, None, None].expand(2, 4, 9, 5, 7)
    wanted = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert (convex_upsample(logits, weights) - wanted).abs().max() < 0.1


def test_convex_upsampling_stays_between_its_neighbours():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 6, 6, generator=generator)
    weights = torch.randn(1, 4, 9, 6, 6, generator=generator).softmax(2)
    up = convex_upsample(logits, weights)
    high = F.interpolate(F.max_pool2d(F.pad(logits, (1,) * 4, value=-math.inf), 3, 1), scale_factor=2.0)
    low = -F.interpolate(F.max_pool2d(F.pad(-logits, (1,) * 4, value=-math.inf), 3, 1), scale_factor=2.0)
    assert up.shape == (1, 2, 12, 12) and (up <= high + 1e-6).all() and (up >= low - 1e-6).all()


def test_sub_pixels_go_where_they_belong():
    logits = torch.arange(6.0).reshape(1, 1, 2, 3)
    centre = torch.zeros(1, 4, 9, 2, 3)
    centre[:, :, 4] = 1
    assert torch.equal(convex_upsample(logits, centre), F.interpolate(logits, scale_factor=2.0, mode="nearest"))
    right = torch.zeros(1, 4, 9, 2, 3)
    right[:, 0::2, 4] = 1
    right[:, 1::2, 5] = 1
    assert convex_upsample(logits, right)[0, 0, 0].tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("batch", "slots"), [(1, 1), (1, 5), (3, 4)])
def test_inference_takes_shortcuts_to_the_same_answer(batch, slots):
    # one image and no gradients: pooling slot by slot, FiLM inside the convolution, no repeated time
    network, (image, probs, mask) = noisy(), inputs(batch, slots)
    fast = folded(network)
    with torch.enable_grad():
        expected = network(mask, 3, network.condition(image, probs))
    with torch.no_grad():
        assert_same(fast(mask, 3, fast.condition(image, probs)), expected)
        step = torch.full((batch,), 3)
        assert_same(network(mask, step, network.condition(image, probs)), expected)


def test_compiled_it_answers_the_same_and_is_not_compiled_for_every_size():
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = SlotUNet(LogitsNetwork(image_widths=(8, 8), slot_widths=(4, 4))).eval().requires_grad_(False)
    counter = CompileCounter()
    condition, denoise, finish = (
        torch.compile(method, fullgraph=True, dynamic=True, backend=counter)
        for method in (network.condition, network.denoise, network.finish)
    )
    counts = []
    for slots, height, width in ((3, 32, 48), (5, 48, 32), (4, 64, 80), (7, 32, 80)):
        image, probs, mask = inputs(1, slots, height, width)
        expected = network(mask, 3, network.condition(image, probs))
        seen = condition(image, probs)
        assert_same(finish(denoise(mask, 3, seen), seen), expected)
        counts.append(counter.frame_count)
    assert counts[-1] == counts[-2] > 0


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("strip", [1, 1 << 16])
def test_finishing_a_few_rows_at_a_time_changes_nothing(slots, strip, monkeypatch):
    monkeypatch.setattr(strips, "STRIP_VALUES", strip)
    network = noisy()
    image, probs, mask = inputs(2, slots)
    with torch.no_grad():
        condition = network.condition(image, probs)
        in_strips = network.finish(network.denoise(mask, 3, condition), condition)
    with torch.enable_grad():
        whole = network.finish(network.denoise(mask, 3, condition), condition)
    assert_same(in_strips, whole)
