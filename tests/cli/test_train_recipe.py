import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps.cli import train_recipe as command
from ddps.training.paper import PaperRun, load_recipe, recipe_names

NAME = "paper-segformer-b0-ade20k"


@pytest.fixture
def captured(monkeypatch) -> list[PaperRun]:
    """Takes the place of training; holds the runs that it was given."""
    runs: list[PaperRun] = []

    def train(run: PaperRun) -> Path:
        runs.append(run)
        return run.folder / "best"

    monkeypatch.setattr(command, "train_recipe", train)
    return runs


def test_a_recipe_as_it_is(run, captured):
    outcome = run("train", "--recipe", NAME, "--backbone", "seg", "--data", "ade", "-o", "run")
    assert outcome.code == 0 and outcome.out.strip() == str(Path("run") / "best")
    assert captured == [PaperRun(load_recipe(NAME), "ade", "run", "seg")]


def test_every_option_reaches_the_run(run, captured):
    changes = ("--set", "optimizer.lr=1e-3", "--set", "objective.noised=segmentor")
    rest = ("--device", "cpu", "--seed", 3, "--workers", 2, "--init", "other", "--predictions", "p", "--name", "mine")
    assert run("train", "--recipe", NAME, "--data", "ade", "-o", "run", *changes, *rest).code == 0
    (got,) = captured
    recipe = load_recipe(NAME, ["optimizer.lr=1e-3", "objective.noised=segmentor", "model.name=mine"])
    assert got == PaperRun(recipe, "ade", "run", "", "p", "other", "cpu", 3, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        "--recipe paper",
        "--recipe none.json",
        f"--recipe {NAME} --data another",
        f"--recipe {NAME} --batch-size 3",
        f"--recipe {NAME} --steps 3",
        f"--recipe {NAME} --data-weight 1",
        f"--recipe {NAME} --model-config m.json",
        f"--recipe {NAME} --set optimizer.lr",
        f"--recipe {NAME} --set optimizer.rate=1",
        f"--recipe {NAME} --set optimizer.lr=fast",
        f"--recipe {NAME} --set optimizer.lr=-1",
        f"--recipe {NAME} --seed -1",
        "--backbone seg",
        "--set optimizer.lr=1",
    ],
)
def test_bad_calls(run, captured, wrong):
    assert run("train", "--data", "ade", "-o", "run", *wrong.split()).is_bad_input()
    assert captured == []


def test_the_help_names_the_recipes(run):
    said = " ".join(run("train", "--help").out.split())
    assert all(name in said.replace("- ", "-") for name in recipe_names())


def write_ade20k(root: Path, count: int) -> None:
    """ADEChallengeData2016 with square images of two classes and void (0 in the files)."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for number in range(count):
            mask = np.ones((48, 64), dtype=np.uint8)
            mask[10:30, 20:50], mask[:4] = 150, 0
            image = np.repeat((mask + rng.integers(0, 40, mask.shape)).astype(np.uint8)[:, :, None], 3, 2)
            for part, array, suffix in (("images", image, "jpg"), ("annotations", mask, "png")):
                folder = root / part / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"ADE_{number}.{suffix}")


def test_the_real_recipe_in_small(run: Callable, tmp_path):
    """B0/ADE20K as it ships, with fewer and smaller crops: from a transformers folder to a mask."""
    transformers = pytest.importorskip("transformers")
    hidden = [32, 64, 160, 256]
    config = transformers.SegformerConfig(hidden_sizes=hidden, depths=[2] * 4, num_labels=150, decoder_hidden_size=16)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "segformer")
    write_ade20k(tmp_path / "ADEChallengeData2016", 2)
    small = (
        "data.crop=64", "optimizer.batch_size=1", "single_step.iterations=1", "multi_step.iterations=1",
        "model.network.dim=16", "model.network.channels=16", "model.network.out_dim=16", "data.fit=[64, 48]",
        "model.inference.steps=2", "report.validate_images=1",
    )  # fmt: skip
    settings = [part for change in small for part in ("--set", change)]
    paths = ("--data", tmp_path, "--backbone", tmp_path / "segformer", "-o", tmp_path / "run", "--device", "cpu")
    outcome = run("train", "--recipe", NAME, *paths, *settings)
    assert outcome.code == 0, outcome.err
    saved = json.loads((Path(outcome.out.strip()) / "config.json").read_text())
    assert saved["labels"]["num_classes"] == 150 and saved["labels"]["names"][0] == "wall"
    assert saved["network"]["num_classes"] == 151 and saved["backbone"]["depths"] == [2, 2, 2, 2]
