"""The U-Net against golden data, and the sizes that it takes."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ddps.errors import InputError
from ddps.models.unet import UNet


def tiny(**changes: object) -> UNet:
    sizes: dict = {"channels": 5, "dim": 8, "out_dim": 3, "dim_mults": (1, 2)} | changes
    torch.manual_seed(0)
    return UNet(**sizes).eval()


def test_golden_output_under_the_checkpoints_own_names(shared):
    path = shared / "golden" / "unet.safetensors"
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    golden = load_file(path)
    unet = UNet(config["channels"], config["dim"], config["out_dim"], config["dim_mults"]).eval()
    unet.load_state_dict({k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")})
    with torch.no_grad():
        output = unet(golden["input"], golden["timestep"])
    assert (output - golden["output"]).abs().max() <= 1e-4


@pytest.mark.parametrize("dim_mults", [(1,), (1, 2), (2, 1, 3)])
def test_any_level_widths(dim_mults):
    unet = tiny(dim_mults=dim_mults)
    side = 2 * unet.multiple
    assert unet.multiple == 2 ** (len(dim_mults) - 1)
    assert unet(torch.randn(2, 5, side, unet.multiple), torch.tensor([0, 7])).shape == (2, 3, side, unet.multiple)


def test_the_answer_depends_on_the_time_of_each_image_only():
    unet, x = tiny(), torch.randn(2, 5, 8, 8)
    with torch.no_grad():
        both = unet(x, torch.tensor([3, 9]))
        torch.testing.assert_close(both[1:], unet(x[1:], torch.tensor([9])))
        assert (both[1:] - unet(x[1:], torch.tensor([10]))).abs().max() > 1e-4


def test_half_precision_stays_close_and_tells_late_times_apart():
    unet, x = tiny(), torch.randn(1, 5, 8, 8)
    with torch.no_grad():
        wanted = unet(x, torch.tensor([999]))
        ours, next_time = (unet.bfloat16()(x.bfloat16(), torch.tensor([i])) for i in (999, 1000))
    assert ours.dtype == torch.bfloat16 and not torch.equal(ours, next_time)
    assert (ours.float() - wanted).abs().mean() < 0.2 * wanted.abs().mean()


def test_wrong_sides_name_the_size_to_pad_to():
    with pytest.raises(InputError, match=r"multiples of 2; got 7x6; try padding to \(8, 6\)"):
        tiny()(torch.randn(1, 5, 7, 6), torch.tensor([0]))


def test_widths_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(InputError, match="multiples of 8"):
        tiny(dim=12)


def test_every_parameter_learns():
    unet = tiny()
    unet(torch.randn(1, 5, 8, 8), torch.tensor([4])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())
