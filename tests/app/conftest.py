"""A small photo with masks of it on disk, as a visitor of the page would upload them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT, CLASSES = 96, 64, 3


@dataclass(frozen=True)
class Files:
    """Paths of one photo and of predictions of it; `labels` is what all of them say."""

    folder: Path
    photo: Path
    label_map: Path
    binary: Path
    logits: Path
    labels: np.ndarray


def make_files(folder: Path) -> Files:
    rng = np.random.default_rng(0)
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[16:48, 12:44], labels[24:, 56:] = 1, 2
    tints = np.array([[200, 190, 160], [60, 90, 200], [180, 60, 50]])
    photo = np.clip(tints[labels] + rng.normal(0, 12, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    found = Files(folder, *(folder / name for name in ("photo.png", "labels.png", "binary.png", "logits.npz")), labels)
    Image.fromarray(photo).save(found.photo)
    Image.fromarray(labels).save(found.label_map)
    Image.fromarray((labels == 1).astype(np.uint8) * 255).save(found.binary)
    # one value for every block of 4 x 4 pixels; all borders lie between blocks
    hot = labels[::4, ::4] == np.arange(CLASSES)[:, None, None]
    np.savez(found.logits, logits=4 * hot.astype(np.float32) - 2)
    return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path)
