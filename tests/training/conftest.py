"""Tiny data sets on disk: bright squares on a dark ground, and a network small enough to train in seconds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddps import DDPSConfig
from ddps.config import InferenceConfig, LogitsNetwork

SIDE = 64
VOID = 255


@pytest.fixture(autouse=True)
def same_global_random_numbers() -> Iterator[None]:
    """Training seeds torch; other tests should not notice."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.fixture
def tiny_model() -> DDPSConfig:
    return DDPSConfig(
        network=LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6), max_slots=4),
        inference=InferenceConfig(steps=2, tile=128, overlap=16),
    )


def squares(rng: np.random.Generator, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask: class k is of brightness k, with noise, and one strip is void."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for label in range(1, classes):
        top, left = rng.integers(4, SIDE - 28, 2)
        height, width = rng.integers(16, 25, 2)
        mask[top : top + height, left : left + width] = label
    grey = 40 + mask.astype(float) * (180 / max(1, classes - 1)) + rng.normal(0, 12, mask.shape)
    image = np.repeat(grey[:, :, None], 3, 2).clip(0, 255).astype(np.uint8)
    mask[:2] = VOID
    return image, mask


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., Path]:
    """Writes SET/{train,val}/{images,masks} and classes.json."""

    def make(name: str = "squares", classes: int = 2, train: int = 3, val: int = 0) -> Path:
        rng = np.random.default_rng(0)
        folder = tmp_path / name
        for split, count in (("train", train), ("val", val)):
            for number in range(count):
                for part, array in zip(("images", "masks"), squares(rng, classes), strict=True):
                    (folder / split / part).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(folder / split / part / f"{split}{number}.png")
        about = {"classes": [f"c{k}" for k in range(classes)], "num_classes": classes, "ignore_index": VOID}
        (folder / "classes.json").write_text(json.dumps(about))
        return folder

    return make


@pytest.fixture
def predict() -> Callable[..., None]:
    """Writes a segmentor's label maps for a split: the truth, its classes merged, void guessed as class 0."""

    def write(folder: Path, root: Path, split: str = "train", merge: list[int] | None = None) -> None:
        (root / split).mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / split / "masks").iterdir()):
            mask = np.array(Image.open(path))
            mask[mask == VOID] = 0
            labels = mask if merge is None else np.array(merge, dtype=np.uint8)[mask]
            Image.fromarray(labels).save(root / split / path.name)
        if merge is not None:
            (root / "classes.json").write_text(json.dumps({"merge": merge}))

    return write
