"""Fixtures for all tests: the shared data folder, where there is one, and a tiny refiner."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import InferenceConfig, LabelSpace, LogitsNetwork
from ddps.refiner import build_network

torch.set_num_threads(1)

TINY = DDPSConfig(
    name="tiny",
    network=LogitsNetwork(image_widths=(8, 8), slot_widths=(8, 8), max_slots=4),
    inference=InferenceConfig(steps=2, tile=128, overlap=16),
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden data, data sets and segmentors: $DDPS_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("DDPS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data folder, which is not at {folder}; set DDPS_SHARED to where it is")
    return folder


def make_tiny_refiner(config: DDPSConfig = TINY) -> DDPSRefiner:
    """A refiner on the CPU with a small network whose random weights do change masks."""
    torch.manual_seed(0)
    network = build_network(config)
    with torch.no_grad():
        # Untrained, the network returns the prediction as it is: its last layers start at zero.
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return DDPSRefiner(config, network, device="cpu")


@pytest.fixture(scope="session")
def tiny_refiner() -> DDPSRefiner:
    return make_tiny_refiner()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_refiner`, saved; takes any number of classes."""
    return make_tiny_refiner().save_pretrained(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_model_of_5_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for exactly 5 classes."""
    config = replace(TINY, labels=LabelSpace(num_classes=5))
    return make_tiny_refiner(config).save_pretrained(tmp_path_factory.mktemp("tiny5"))
