import torch
from torch import nn

from ddps.config import LogitsNetwork
from ddps.models.fold import folded
from ddps.models.slot_unet import SlotUNet


def trained_looking(seed: int = 0) -> SlotUNet:
    """A tiny network whose heads and batch statistics are far from their start."""
    torch.manual_seed(seed)
    network = SlotUNet(LogitsNetwork(image_widths=(8, 8, 12), slot_widths=(4, 4, 6))).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    for head in (network.change, network.trust, network.upsample, network.detail):
        nn.init.normal_(head.weight, std=0.1)
    return network


@torch.no_grad()
def test_folding_keeps_the_function():
    network = trained_looking()
    fast = folded(network)
    image, probs = torch.rand(2, 3, 32, 48), torch.randn(2, 5, 32, 48).softmax(1)
    mask = torch.randint(5, (2, 16, 24))
    expected = network(mask, 7, network.condition(image, probs))
    torch.testing.assert_close(fast(mask, 7, fast.condition(image, probs)), expected, atol=1e-4, rtol=1e-4)


def test_folding_leaves_no_normalisation_and_the_original_alone():
    network = trained_looking()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
