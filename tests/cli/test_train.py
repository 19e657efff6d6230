import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddps.cli import train as command
from ddps.config import DDPSConfig
from ddps.training import TrainConfig
from ddps.training.own_classes import SETTINGS


@pytest.fixture
def captured(monkeypatch):
    """Takes the place of training; holds the settings that it was given."""
    settings: list[TrainConfig] = []

    def train(config):
        settings.append(config)
        return Path(config.out) / "best"

    monkeypatch.setattr(command, "train", train)
    return settings


def test_defaults_are_those_of_the_library(run, captured):
    outcome = run("train", "--data", "set", "-o", "run")
    assert outcome.code == 0 and outcome.out.strip() == str(Path("run") / "best")
    assert captured == [TrainConfig(data=("set",), out="run", model=DDPSConfig(name="run"))]


def test_every_option_reaches_the_settings(run, captured, tiny_model_dir):
    data = ("--data", "one", "--data", "two", "--data-weight", "1", "--data-weight", "2.5", "--predictions", "p")
    rest = ("--steps", 7, "--batch-size", 3, "--lr", "1e-4", "--device", "cpu", "--seed", 5, "--amp", "off")
    assert run("train", *data, "-o", "run", *rest, "--model-config", tiny_model_dir / "config.json").code == 0
    settings = captured[0]
    assert settings.data == ("one", "two") and settings.data_weights == (1.0, 2.5) and settings.predictions == "p"
    assert (settings.steps, settings.batch_size, settings.lr, settings.seed) == (7, 3, 1e-4, 5)
    assert settings.model.name == "tiny"


def test_settings_out_of_bounds(run, captured):
    assert run("train", "--data", "set", "-o", "run", "--steps", 0).is_bad_input()
    assert run("train", "--data", "set", "-o", "run", "--model-config", "none.json").is_bad_input()
    assert captured == []


def test_data_that_is_not_there(run, tmp_path):
    outcome = run("train", "--data", tmp_path / "none", "-o", tmp_path / "run", "--device", "cpu")
    assert outcome.is_bad_input() and not (tmp_path / "run").exists()


def test_trained_weights_can_be_used(run, tmp_path, tiny_model_dir, data_set):
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:30, 20:50] = 1
    mask[35:, 40:] = 2
    for part in ("images", "masks"):
        (tmp_path / "set" / "train" / part).mkdir(parents=True)
        for stem in "ab":
            Image.fromarray(mask * (100 if part == "images" else 1)).save(tmp_path / f"set/train/{part}/{stem}.png")
    (tmp_path / "set" / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c"], "num_classes": 3}))
    settings = ("--steps", 2, "--batch-size", 2, "--crop", 32, "--device", "cpu", "--warmup", 1)
    config = ("--model-config", tiny_model_dir / "config.json")
    outcome = run("train", "--data", tmp_path / "set", "-o", tmp_path / "run", *settings, *config)
    assert outcome.code == 0
    model = outcome.out.strip()
    out = tmp_path / "mask.png"
    assert (
        run("refine", data_set.images / "a.png", data_set.predictions / "a.npz", "-o", out, "--model", model).code == 0
    )


def test_own_classes_start_from_the_weights_own_settings(run, captured, tiny_model_dir):
    start = ("--init", tiny_model_dir)
    assert (
        run("train", "--data", "set", "-o", "run", *start, "--steps", 7, "--segmentor", "m:fit", "--folds", 3).code == 0
    )
    settings = captured[0]
    tiny = DDPSConfig.from_json((tiny_model_dir / "config.json").read_text())
    assert settings.model.network == tiny.network and settings.model.inference == tiny.inference
    assert settings.model.name == "run" and settings.init == str(tiny_model_dir)
    assert settings.steps == 7 and settings.crop == SETTINGS["crop"] and settings.ema == SETTINGS["ema"]
    assert (settings.segmentor, settings.folds) == ("m:fit", 3)
    assert run("train", "--data", "a", "--data", "b", "-o", "run", *start).code == 0
    several = captured[1]
    assert several.steps == TrainConfig(data=("a",), out="run").steps and several.model.network == tiny.network


def test_weights_that_are_not_there(run, captured):
    assert run("train", "--data", "set", "-o", "run", "--init", "no such weights").is_bad_input()
    assert run("train", "--data", "set", "-o", "run", "--segmentor", "m:f", "--predictor", "m:f").is_bad_input()
    assert captured == []
