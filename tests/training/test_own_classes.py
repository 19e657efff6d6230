"""Settings of a run over one's own classes, and that a refiner that knows them by name uses the names."""

from dataclasses import replace

import pytest
import torch

from ddps import DDPSRefiner
from ddps.config import LabelSpace
from ddps.errors import InputError
from ddps.refiner import build_network
from ddps.training import TrainConfig, model_of, own_classes
from ddps.training.own_classes import SETTINGS


def test_settings_and_the_weights_own_config(tiny_model_dir):
    config = own_classes("data", "run", str(tiny_model_dir), steps=5)
    assert config.steps == 5 and config.crop == SETTINGS["crop"] and config.data == ("data",)
    assert config.model == model_of(str(tiny_model_dir)) and config.init == str(tiny_model_dir)
    assert all(name in vars(TrainConfig(data=("a",), out="run")) for name in SETTINGS)


def test_a_model_of_other_classes_starts_for_any(tiny_model_of_5_dir):
    assert model_of(str(tiny_model_of_5_dir)).labels == LabelSpace()


def test_no_such_weights():
    with pytest.raises(InputError, match="no such weights"):
        own_classes("data", "run", "no such weights")


@pytest.mark.parametrize("classes", [0, 3])
def test_names_count_where_they_are_known(tiny_model, classes):
    """The class-agnostic network gives permuted classes permuted probabilities; one that knows them does not."""
    config = replace(tiny_model, labels=LabelSpace(3), network=replace(tiny_model.network, classes=classes))
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    refiner = DDPSRefiner(config, network, "cpu")
    generator = torch.Generator().manual_seed(0)
    image, logits = torch.rand(3, 40, 56, generator=generator), torch.randn(3, 40, 56, generator=generator)
    order = torch.tensor([2, 0, 1])
    one, other = (refiner.refine(image, values, sampler="single").probs for values in (logits, logits[order]))
    # noise is drawn over slots, by falling mass: the same for both
    difference = float((one[order] - other).abs().max())
    assert difference < 1e-4 if classes == 0 else difference > 1e-2
