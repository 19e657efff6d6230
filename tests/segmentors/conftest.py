"""The golden whole model: recorded image, features, masks and logits."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, Tensor]:
    """image (1, 3, 64, 96), normalised; feature.0-3; masks (20, 1, 16, 24); logits (20, 1, 7, 16, 24)."""
    return load_file(shared / "golden" / "checkpoint_io.safetensors")
