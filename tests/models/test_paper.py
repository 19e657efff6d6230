"""The paper's denoiser against golden data, and shapes, dtypes and names."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ddps.config import FeaturesNetwork, ScheduleConfig
from ddps.diffusion import AbsorbingKernel, UniformKernel, free, make_schedule, posterior
from ddps.errors import InputError
from ddps.models.paper import FeaturesDenoiser
from ddps.models.paper_inference import StepNetwork

TINY = FeaturesNetwork(
    in_channels=(4, 6), channels=8, embed_dim=3, dim=8, dim_mults=(1, 1, 1), out_dim=8, num_classes=5
)


def tiny(schedule: ScheduleConfig | None = None, **changes: object) -> FeaturesDenoiser:
    torch.manual_seed(0)
    return FeaturesDenoiser(dataclasses.replace(TINY, **changes), schedule or ScheduleConfig()).eval()


def features(batch: int = 2, height: int = 8, width: int = 12) -> list[Tensor]:
    coarse = (-(-height // 2), -(-width // 2))
    generator = torch.Generator().manual_seed(1)
    sizes = ((batch, 4, height, width), (batch, 6, *coarse))
    return [torch.randn(size, generator=generator) for size in sizes]


def some_mask(batch: int = 2, height: int = 8, width: int = 12) -> Tensor:
    return torch.randint(5, (batch, height, width), generator=torch.Generator().manual_seed(2))


def network_of(config: dict) -> FeaturesNetwork:
    assert config["unet_channels"] == config["channels"] + config["cat_embedding_dim"]
    return FeaturesNetwork(
        in_channels=tuple(config["in_channels"]),
        channels=config["channels"],
        embed_dim=config["cat_embedding_dim"],
        dim=config["dim"],
        dim_mults=tuple(config["dim_mults"]),
        out_dim=config["out_dim"],
        num_classes=config["num_classes"],
        dropout=config["dropout_ratio"],
    )


def assert_golden(denoiser: FeaturesDenoiser, golden: dict[str, Tensor]) -> None:
    condition = denoiser.condition([golden[f"feature.{j}"] for j in range(4)])
    folded = StepNetwork(denoiser, range(len(golden["masks"]))).bind(condition)
    for i, (mask, logits) in enumerate(zip(golden["masks"], golden["logits"], strict=True)):
        assert (denoiser(mask, i, condition) - logits).abs().max() <= 1e-4
        assert (folded(mask, i) - logits).abs().max() <= 1e-4


@torch.no_grad()
def test_golden_head_under_the_checkpoints_own_names(shared):
    path = shared / "golden" / "head.safetensors"
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    golden = load_file(path)
    denoiser = FeaturesDenoiser(network_of(config), ScheduleConfig(num_steps=config["diffusion_timesteps"])).eval()
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    # Golden tables were computed in float32, where log(1 - 0.99999) keeps three digits.
    for table, tolerance in (("log_at", 1e-4), ("log_bt", 2e-3), ("log_cumprod_at", 1e-4), ("log_cumprod_bt", 2e-3)):
        torch.testing.assert_close(getattr(denoiser, table), state[table], rtol=0, atol=tolerance)
    denoiser.load_state_dict(state)
    assert_golden(denoiser, golden)


@torch.no_grad()
def test_golden_checkpoint(shared):
    path = shared / "golden" / "checkpoint_io.safetensors"
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["head"])
    loaded = torch.load(shared / "golden" / "checkpoint_origin.pth", weights_only=True)["state_dict"]
    denoiser = FeaturesDenoiser(network_of(config), ScheduleConfig(num_steps=config["diffusion_timesteps"])).eval()
    prefix = "decode_head."
    denoiser.load_state_dict({k.removeprefix(prefix): v for k, v in loaded.items() if k.startswith(prefix)})
    assert_golden(denoiser, load_file(path))


def test_names_and_shapes_of_the_released_model(shared):
    wanted = json.loads((shared / "golden" / "segformer_b2_ade20k_keys.json").read_text())
    wanted = {k.removeprefix("decode_head."): v for k, v in wanted.items() if k.startswith("decode_head.")}
    with torch.device("meta"):
        denoiser = FeaturesDenoiser(FeaturesNetwork(), ScheduleConfig(num_steps=100))
    assert {name: list(value.shape) for name, value in denoiser.state_dict().items()} == wanted


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 7), (8, 12), (5, 4)])
def test_every_size(height, width, batch):
    denoiser = tiny()
    condition = denoiser.condition(features(batch, height, width))
    assert condition.shape == (batch, 8, height, width)
    assert denoiser(some_mask(batch, height, width), 3, condition).shape == (batch, 5, height, width)


@torch.no_grad()
def test_padding_does_not_reach_maps_that_fit():
    denoiser = tiny()
    condition, mask = denoiser.condition(features()), some_mask()
    embedded = denoiser.embed(mask).movedim(-1, 1)
    direct = denoiser.unet(torch.cat([condition, embedded], 1), torch.tensor([3, 3]))
    torch.testing.assert_close(denoiser(mask, 3, condition), denoiser.conv_seg_new(direct))


@torch.no_grad()
def test_a_time_per_image_and_one_time_agree():
    denoiser = tiny()
    condition, mask = denoiser.condition(features()), some_mask()
    torch.testing.assert_close(denoiser(mask, torch.tensor([7, 7]), condition), denoiser(mask, 7, condition))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_dtype_and_networks_in_half(dtype):
    maps, mask = features(), some_mask()
    wanted = tiny()(mask, 3, tiny().condition(maps))
    for denoiser in (tiny(), tiny().bfloat16()):
        condition = denoiser.condition([x.to(dtype) for x in maps])
        logits = denoiser(mask, 3, condition)
        assert condition.dtype == logits.dtype == denoiser.embed.weight.dtype
        torch.testing.assert_close(logits.float(), wanted, rtol=0.1, atol=0.2)


@torch.no_grad()
@pytest.mark.parametrize("sampler", [free, posterior])
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_samplers_run_it_with_either_kernel(sampler, kernel):
    denoiser = tiny(ScheduleConfig(kernel=kernel))
    assert denoiser.embed.num_embeddings == 5 + (kernel == "absorbing")
    condition = denoiser.condition(features())
    logits = sampler(
        lambda mask, i: denoiser(mask, i, condition),
        None,
        AbsorbingKernel(5) if kernel == "absorbing" else UniformKernel(5),
        make_schedule("linear", 20),
        3,
        [torch.Generator().manual_seed(b) for b in range(2)],
        shape=(2, 8, 12),
    )
    assert logits.shape == (2, 5, 8, 12) and logits.isfinite().all()


def test_dropout_is_for_training_only():
    denoiser = tiny(dropout=0.5)
    condition, mask = denoiser.condition(features()).detach(), some_mask()
    assert torch.equal(denoiser(mask, 3, condition), denoiser(mask, 3, condition))
    denoiser.dropout.train()
    assert not torch.equal(denoiser(mask, 3, condition), denoiser(mask, 3, condition))


def test_wrong_features_and_masks_are_refused():
    denoiser = tiny()
    first, second = features()
    for bad in ([first], [second, first], [first, second[:1]], [first[0], second], []):
        with pytest.raises(InputError, match="2 feature maps"):
            denoiser.condition(bad)
    condition = denoiser.condition([first, second])
    for mask in (torch.zeros(2, 4, 6, dtype=torch.int64), torch.zeros(2, 8, 12)):
        with pytest.raises(InputError, match="an int64 mask"):
            denoiser(mask, 0, condition)


def test_torch_compile_is_not_required(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("torch.compile was called")

    monkeypatch.setattr(torch, "compile", refuse)
    denoiser = tiny()
    with torch.no_grad():
        assert denoiser(torch.zeros(2, 8, 12, dtype=torch.int64), 0, denoiser.condition(features())).isfinite().all()
