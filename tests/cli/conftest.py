"""A small data set of images, masks and predictions on disk, and a way to run the command."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps import outputs
from ddps.atomic import atomic_write
from ddps.cli import refine_item
from ddps.cli.main import main

HEIGHT, WIDTH, CLASSES = 40, 56, 3
STEMS = ("a", "b", "c")


@dataclass(frozen=True)
class DataSet:
    """Three images with masks; predictions are logits at a quarter of their size."""

    root: Path
    images: Path
    masks: Path
    predictions: Path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """What stdout holds, which must be exactly one JSON object."""
        return json.loads(self.out)

    def is_bad_input(self) -> bool:
        """One line on stderr that says what was expected, what came and what to do; nothing on stdout."""
        one_line = self.err.count("\n") == 1 and self.err.startswith("ddps: error: ")
        return self.code == 2 and one_line and "; try " in self.err and self.out == ""


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    data = DataSet(tmp_path, tmp_path / "images", tmp_path / "masks", tmp_path / "predictions")
    for folder in (data.images, data.masks, data.predictions):
        folder.mkdir()
    rng = np.random.default_rng(0)
    for stem in STEMS:
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[8:30, 10:40], mask[20:, 30:] = 1, 2
        Image.fromarray(image).save(data.images / f"{stem}.png")
        Image.fromarray(mask).save(data.masks / f"{stem}.png")
        logits = rng.normal(size=(CLASSES, HEIGHT // 4, WIDTH // 4)).astype(np.float32)
        logits += 3 * (mask[2::4, 2::4] == np.arange(CLASSES)[:, None, None])
        np.savez(data.predictions / f"{stem}.npz", logits=logits)
    return data


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets so many files be written whole by `ddps refine`, and then has no space left."""

    def fill(after: int) -> None:
        written = []

        def write(*arguments: object, **keywords: object) -> object:
            if len(written) == after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(1)
            return atomic_write(*arguments, **keywords)

        monkeypatch.setattr(refine_item, "atomic_write", write)
        monkeypatch.setattr(outputs, "atomic_write", write)

    return fill


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `ddps` in this process."""

    def command(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command


@pytest.fixture
def refine(run, data_set, tiny_model_dir):
    """Runs `ddps refine` with the tiny model."""

    def command(*arguments, model=tiny_model_dir):
        return run("refine", *arguments, "--model", model, "--device", "cpu")

    return command
