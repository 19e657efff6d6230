"""Losses against hand-made truth, and one training pass: reproducible, and open to the network's own predictions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps.config import LogitsNetwork
from ddps.diffusion.schedules import make_schedule
from ddps.models.slot_unet import SlotUNet
from ddps.training import TrainConfig
from ddps.training.data import Batch
from ddps.training.objective import (
    condition_of,
    first_crops,
    naming_loss,
    outline_weight,
    refinement_loss,
    soft_iou_loss,
    training_logits,
)

SCHEDULE = make_schedule("linear", 20)


def some_target(batch: int = 2, side: int = 32) -> Tensor:
    target = torch.zeros(batch, side, side, dtype=torch.int64)
    target[:, 8:24, 8:24], target[:, :4] = 1, 255
    return target


def logits_for(target: Tensor, slots: int = 3, scale: float = 50.0) -> Tensor:
    one_hot = F.one_hot(target.masked_fill(target == 255, 0), slots).permute(0, 3, 1, 2)
    return scale * (2.0 * one_hot - 1)


def some_batch(slots: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(2, slots, 32, 32, generator=generator).softmax(1)
    valid = torch.ones(2, slots, dtype=torch.bool)
    return Batch(torch.rand(2, 3, 32, 32, generator=generator), probs, some_target(), valid)


def padded_batch() -> Batch:
    batch = some_batch(3)
    batch.probs[0, 2], batch.valid[0, 2] = 0, False
    batch.probs = batch.probs / batch.probs.sum(1, keepdim=True)
    return batch


def config_of(tiny_model, **settings) -> TrainConfig:
    return TrainConfig(data=("a",), out="run", model=tiny_model, **settings)


def make_network(tiny_model) -> SlotUNet:
    assert isinstance(tiny_model.network, LogitsNetwork)
    torch.manual_seed(0)
    network = SlotUNet(tiny_model.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def test_outlines_weigh_more_and_void_nothing():
    target = some_target()
    weight = outline_weight(target, 2.0)
    assert (weight[target == 255] == 0).all()
    assert (weight[:, 8:12, 8:24] == 3).all() and (weight[:, 20:28, 8:24] == 3).all()
    assert (weight[:, 14:18, 14:18] == 1).all() and (weight[:, 30:, :2] == 1).all()
    assert (outline_weight(target, 0.0) == (target != 255)).all()


def test_soft_iou_is_0_for_the_truth_and_rises_with_mistakes():
    target, valid = some_target(), torch.ones(2, 3, dtype=torch.bool)
    losses = []
    for shift in (0, 1, 3, 6, 12):
        moved = target.roll(shift, 2)
        losses.append(float(soft_iou_loss(logits_for(moved), target, valid)))
    assert losses[0] == pytest.approx(0, abs=1e-6) and losses == sorted(losses) and losses[-1] > 0.4
    unsure = [float(soft_iou_loss(logits_for(target, scale=s), target, valid)) for s in (5.0, 1.0, 0.2, 0.0)]
    assert unsure == sorted(unsure) and unsure[-1] < 1
    assert soft_iou_loss(logits_for(1 - target.clamp(max=1)), target, valid) > 0.9


def test_soft_iou_looks_neither_at_void_nor_at_padding_nor_at_absent_classes():
    target, valid = some_target(), torch.ones(2, 3, dtype=torch.bool)
    logits = logits_for(target)
    logits[:, :, :4] = torch.randn(2, 3, 4, 32)
    assert soft_iou_loss(logits, target, valid) == pytest.approx(0, abs=1e-6)
    padded = torch.cat([logits, torch.full((2, 1, 32, 32), -1e4)], 1)
    assert soft_iou_loss(padded, target, F.pad(valid, (0, 1))) == pytest.approx(0, abs=1e-6)
    assert soft_iou_loss(logits, torch.full_like(target, 255), valid) == 0


def test_the_loss_falls_towards_the_truth(tiny_model):
    batch, config = some_batch(), config_of(tiny_model)
    losses = [float(refinement_loss(logits_for(batch.target, scale=s), batch, config)) for s in (50.0, 2.0, 0.0, -2.0)]
    assert losses[0] == pytest.approx(0, abs=1e-5) and losses == sorted(losses)
    batch.target = torch.full_like(batch.target, 255)
    assert refinement_loss(torch.zeros(2, 3, 32, 32), batch, config) == 0


def test_the_parts_of_the_loss(tiny_model):
    batch, logits = some_batch(), torch.zeros(2, 3, 32, 32)
    plain = refinement_loss(logits, batch, config_of(tiny_model, iou_weight=0.0, boundary_weight=0.0))
    torch.testing.assert_close(plain, torch.tensor(3.0).log())
    iou = soft_iou_loss(logits, batch.target, batch.valid)
    both = refinement_loss(logits, batch, config_of(tiny_model, iou_weight=2.0, boundary_weight=0.0))
    torch.testing.assert_close(both, plain + 2 * iou)
    wrong_at_the_outline = logits_for(batch.target.roll(2, 2), scale=3.0)
    weights = [config_of(tiny_model, iou_weight=0.0, boundary_weight=w) for w in (0.0, 5.0)]
    assert refinement_loss(wrong_at_the_outline, batch, weights[1]) > refinement_loss(
        wrong_at_the_outline, batch, weights[0]
    )


@pytest.mark.parametrize("own_share", [0.0, 1.0])
@pytest.mark.parametrize("make_batch", [some_batch, padded_batch])
def test_a_pass_is_a_function_of_its_generator(tiny_model, own_share, make_batch):
    batch, config = make_batch(), config_of(tiny_model, own_share=own_share)

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return training_logits(make_network(tiny_model), batch, SCHEDULE, config, generator).detach()

    first = run(3)
    torch.rand(100)
    assert torch.equal(run(3), first) and not torch.equal(run(4), first)
    assert first.shape == (2, 3, 32, 32) and first.dtype == torch.float32 and first.isfinite().all()
    assert (first[~batch.valid] == -1e4).all()


def test_global_random_numbers_are_left_alone(tiny_model):
    network, config = make_network(tiny_model), config_of(tiny_model, own_share=1.0)
    state = torch.get_rng_state()
    training_logits(network, some_batch(), SCHEDULE, config, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_networks_own_prediction_leaves_no_trace_in_it(tiny_model):
    """It comes from a pass in evaluation mode without gradients: only the real pass counts in the statistics."""
    statistics = []
    for own_share in (0.0, 1.0):
        network = make_network(tiny_model).train()
        generator = torch.Generator().manual_seed(0)
        training_logits(network, some_batch(), SCHEDULE, config_of(tiny_model, own_share=own_share), generator)
        assert network.training
        statistics.append({int(b) for n, b in network.named_buffers() if n.endswith("num_batches_tracked")})
    assert statistics == [{1}, {1}]


def test_an_absorbing_kernel_trains_too(tiny_model):
    model = replace(tiny_model, schedule=replace(tiny_model.schedule, kernel="absorbing"))
    logits = training_logits(
        make_network(model), padded_batch(), SCHEDULE, config_of(model), torch.Generator().manual_seed(0)
    )
    refinement_loss(logits, padded_batch(), config_of(model)).backward()
    assert logits.isfinite().all()


def named_batch() -> tuple[Batch, SlotUNet]:
    batch = some_batch(3)
    batch.classes, batch.labels = torch.tensor([[4, 0, 2], [1, 3, 5]]), batch.target.clone()
    torch.manual_seed(0)
    network = SlotUNet(LogitsNetwork(image_widths=(8, 8), slot_widths=(4, 4), classes=5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return batch, network


def test_rare_classes_weigh_more(tiny_model):
    batch, _ = named_batch()
    config = config_of(tiny_model, iou_weight=0.0, boundary_weight=0.0)
    wrong_at_1 = logits_for(torch.zeros_like(batch.target), scale=1.0)
    weights = torch.ones(256)
    weights[1] = 5.0
    assert refinement_loss(wrong_at_1, batch, config, weights) > 1.5 * refinement_loss(wrong_at_1, batch, config)
    batch.labels = None
    assert refinement_loss(wrong_at_1, batch, config, weights) == refinement_loss(wrong_at_1, batch, config)


def test_naming_loss_is_small_for_the_truth_and_looks_at_no_void():
    labels = some_target()
    coarse = F.interpolate(logits_for(labels, 5), scale_factor=0.25, mode="area")
    right = naming_loss(coarse, labels, torch.ones(256))
    assert right < 1 and naming_loss(-coarse, labels, torch.ones(256)) > 20
    coarse[:, :, 0] = 99 * torch.randn(2, 5, 8)
    assert naming_loss(coarse[:, :, :], labels, torch.ones(256)) < 20 * right + 5
    assert naming_loss(coarse, torch.full_like(labels, 255), torch.ones(256)) == 0


@pytest.mark.parametrize("padded", [False, True])
def test_the_first_crops_of_a_batch(padded):
    batch, network = named_batch()
    if padded:
        batch.probs[0, 2], batch.valid[0, 2], batch.classes[0, 2] = 0, False, 5
        batch.probs = batch.probs / batch.probs.sum(1, keepdim=True)
    network.eval()
    condition = condition_of(network, batch)
    few, part = first_crops(batch, condition, 1)
    assert len(few.image) == 1 and torch.equal(few.labels, batch.labels[:1])
    whole = network.denoise(batch.target[:, ::2, ::2].clamp(max=2), 3, condition).logits
    first = network.denoise(few.target[:, ::2, ::2].clamp(max=2), 3, part).logits
    torch.testing.assert_close(first, whole[:1], rtol=0, atol=1e-3)
    assert first_crops(batch, condition, 2) == (batch, condition)
