import json
from pathlib import Path

import pytest

from ddps import DDPSConfig
from ddps.config import LogitsNetwork
from ddps.errors import InputError
from ddps.training import TrainConfig


def test_json_round_trip(tiny_model):
    config = TrainConfig(data=("a", "b"), out="run", data_weights=(1.0, 2.5), steps=7, model=tiny_model)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json(TrainConfig(data=("a",), out="run").to_json()).model == DDPSConfig()


def test_the_run_folder():
    assert TrainConfig(data=("a",), out="some/run").run == Path("some/run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("crop", 16),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("ema", 1.0),
        ("real_share", 1.1),
        ("own_share", -0.1),
        ("collage_share", 2.0),
        ("condition_dropout", -1.0),
        ("workers", -1),
        ("save_every", 0),
        ("data_weights", (1.0, 0.0)),
        ("data_weights", (-1.0,)),
        ("data", ()),
        ("amp", "fp8"),
    ],
)
def test_values_out_of_bounds(name, value):
    with pytest.raises(InputError, match=name if name != "data" else "data set"):
        TrainConfig(**{"data": ("a",), "out": "run", name: value})


@pytest.mark.parametrize("levels", [2, 4, 6])
def test_crops_fit_the_network(levels):
    model = DDPSConfig(network=LogitsNetwork(image_widths=(8,) * levels, slot_widths=(8,) * levels))
    assert TrainConfig(data=("a",), out="run", crop=128, model=model).crop == 128
    with pytest.raises(InputError, match=f"multiple of {2**levels}"):
        TrainConfig(data=("a",), out="run", crop=130 if levels == 2 else 136 if levels == 4 else 96, model=model)


def test_unknown_and_missing_settings():
    settings = json.loads(TrainConfig(data=("a",), out="run").to_json())
    with pytest.raises(InputError, match="colour"):
        TrainConfig.from_json(json.dumps({**settings, "colour": 1}))
    del settings["steps"]
    with pytest.raises(InputError, match="no steps"):
        TrainConfig.from_json(json.dumps(settings))
    with pytest.raises(InputError, match="train.json.lr"):
        TrainConfig.from_json(json.dumps({**settings, "steps": 5, "lr": "fast"}))
