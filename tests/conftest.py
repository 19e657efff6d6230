"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with data sets and golden files, which are no part of the repository."""
    folder = Path(os.environ.get("DDPS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("needs the folder shared/ beside the repository, or DDPS_SHARED")
    return folder
