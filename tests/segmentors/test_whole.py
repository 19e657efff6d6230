"""Golden parity of the whole chain, image → encoder → fusion → U-Net → logits, and images of every size."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddps import DDPSRefiner
from ddps.convert import convert_checkpoint
from ddps.diffusion.samplers import Step
from ddps.segmentors import ImageDenoiser

from ..whole_models import TINY_WHOLE, whole_refiner

MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.fixture(scope="module", params=["ema", "origin"])
def golden_refiner(request, shared, tmp_path_factory) -> DDPSRefiner:
    folder = tmp_path_factory.mktemp("golden") / "model"
    convert_checkpoint(shared / "golden" / f"checkpoint_{request.param}.pth", folder)
    return DDPSRefiner.from_pretrained(folder, device="cpu")


def as_image(pixels: Tensor) -> Tensor:
    """The recorded, normalised image as the one in [0, 1] that it would come from (its values lie outside)."""
    return (pixels * STD[:, None, None] + MEAN[:, None, None]) / 255


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_golden_chain(golden_refiner, golden, batch):
    network = golden_refiner.network
    features, covered = network.encode(as_image(golden["image"]).repeat(batch, 1, 1, 1))
    assert covered == (64, 96)
    for j, feature in enumerate(features):
        assert (feature - golden[f"feature.{j}"]).abs().max() <= 1e-4
    condition = network.condition(features)
    for i, (mask, logits) in enumerate(zip(golden["masks"], golden["logits"], strict=True)):
        found = network(mask.repeat(batch, 1, 1), i, condition)
        assert found.shape == (batch, *logits.shape[1:]) and (found - logits).abs().max() <= 1e-4


@torch.no_grad()
def test_golden_chain_with_all_steps_in_one_batch(golden_refiner, golden):
    network = golden_refiner.network
    masks, logits = golden["masks"][:, 0], golden["logits"][:, 0]
    condition = network.condition(network.backbone(golden["image"]))
    found = network(masks, torch.arange(20), condition.expand(20, -1, -1, -1))
    assert (found - logits).abs().max() <= 1e-4


@torch.no_grad()
def test_golden_chain_compiled(shared, golden, tmp_path):
    convert_checkpoint(shared / "golden" / "checkpoint_ema.pth", tmp_path / "model")
    network = DDPSRefiner.from_pretrained(tmp_path / "model", device="cpu").network

    def chain(pixels: Tensor, mask: Tensor, i: Tensor) -> Tensor:
        return network(mask, i, network.condition(network.backbone(pixels)))

    torch._dynamo.reset()
    # Everything but the C++ of inductor, which takes minutes to build and gives the same (docs/convert.md).
    compiled = torch.compile(chain, backend=os.environ.get("DDPS_COMPILE_BACKEND", "aot_eager"))
    for i in (0, 9, 19):
        found = compiled(golden["image"].repeat(2, 1, 1, 1), golden["masks"][i].repeat(2, 1, 1), torch.tensor([i, i]))
        assert (found - golden["logits"][i]).abs().max() <= 1e-4


def test_refine_is_the_chain_step_by_step(golden_refiner):
    """One call from an image to a mask: every pass is the network on the recorded condition."""
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))
    steps: list[Step] = []
    out = golden_refiner.refine(image, steps=20, callback=steps.append)
    assert out.labels.shape == (50, 70) and [step.i for step in steps] == list(range(20))
    padded = F.pad((255 * image - MEAN[:, None, None]) / STD[:, None, None], (0, 26, 0, 14))[None]
    with torch.no_grad():
        condition = golden_refiner.network.condition(golden_refiner.network.backbone(padded))
        for step in steps:
            assert (golden_refiner.network(step.mask, step.i, condition) - step.logits).abs().max() <= 1e-4
    probs = F.interpolate(steps[-1].logits, (64, 96), mode="bilinear")[0, :, :50, :70].softmax(0)
    torch.testing.assert_close(out.probs, probs)
    assert torch.equal(out.labels, out.probs.argmax(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 9), (31, 33), (32, 32), (64, 48), (100, 30)])
def test_every_size(size):
    refiner = whole_refiner()
    out = refiner.refine(torch.rand(3, *size))
    assert out.labels.shape == out.uncertainty.shape == out.changed.shape == size
    assert out.probs.shape == (5, *size) and not out.changed.any()
    torch.testing.assert_close(out.probs.sum(0), torch.ones(size))


def test_padding_is_what_the_strides_need():
    network = whole_refiner().network
    assert isinstance(network, ImageDenoiser)
    assert network.multiple == 8  # strides 4 and 8, reductions 2 and 1, U-Net of two levels
    deeper = replace(TINY_WHOLE, backbone=replace(TINY_WHOLE.backbone, sr_ratios=(8, 3)))
    assert whole_refiner(deeper).network.multiple == 96
    features, covered = network.encode(torch.rand(1, 3, 9, 17))
    assert covered == (16, 24) and [f.shape[-2:] for f in features] == [(4, 6), (2, 3)]


@torch.no_grad()
def test_padding_is_the_mean_colour():
    network = whole_refiner().network
    image = torch.rand(1, 3, 9, 17)
    mean = (MEAN / 255)[:, None, None].expand(3, 16, 24).clone()
    mean[:, :9, :17] = image[0]
    for a, b in zip(network.encode(image)[0], network.encode(mean[None])[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_is_loaded(tmp_path, half):
    saved = whole_refiner()
    loaded = DDPSRefiner.from_pretrained(saved.save_pretrained(tmp_path / "model", half=half), device="cpu")
    assert loaded.config == saved.config
    assert "refiner.refine(image)\n" in (tmp_path / "model" / "README.md").read_text()
    image = torch.rand(3, 40, 48)
    a, b = (refiner.refine(image, sampler="single").probs for refiner in (saved, loaded))
    assert torch.equal(a, b) if not half else 0 < (a - b).abs().max() < 0.05


def test_names_on_disk_are_those_of_the_checkpoints(shared):
    import json

    from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, ScheduleConfig
    from ddps.refiner import build_network

    wanted = json.loads((shared / "golden" / "segformer_b2_ade20k_keys.json").read_text())
    config = DDPSConfig(network=FeaturesNetwork(), schedule=ScheduleConfig(num_steps=100), backbone=BackboneConfig())
    with torch.device("meta"):
        state = build_network(config).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {
        name.removeprefix("decode_head."): shape for name, shape in wanted.items()
    }
