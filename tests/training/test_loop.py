"""Training end to end on the CPU: what a run leaves, that a killed run resumes bit for bit, and that it learns."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ddps import DDPSConfig, DDPSRefiner
from ddps.config import FeaturesNetwork, LabelSpace, LogitsNetwork
from ddps.diffusion.schedules import make_schedule
from ddps.errors import InputError
from ddps.models.slot_unet import SlotUNet
from ddps.training import TrainConfig, loop, own_classes, train
from ddps.training.data import CropStream, collate
from ddps.training.objective import refinement_loss, training_logits
from ddps.training.sets import read_data_set
from ddps.training.start import new_network, with_labels

FILES = {"train.json", "log.jsonl", "curves.svg", "examples", "state.safetensors", "best", "last"}


@pytest.fixture
def config_of(tmp_path, tiny_model):
    def make(*folders: Path, **settings: object) -> TrainConfig:
        values = {
            "data": tuple(map(str, folders)), "out": str(tmp_path / "run"), "steps": 6, "batch_size": 2, "crop": 32,
            "warmup": 2, "save_every": 3, "validate_every": 100, "validate_images": 2, "own_share": 0.5, "amp": "off",
            "device": "cpu", "model": tiny_model,
        }  # fmt: skip
        return TrainConfig(**{**values, **settings})

    return make


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def state_of(run: Path) -> tuple[dict[str, Tensor], dict]:
    path = run / "state.safetensors"
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["facts"])


def assert_same_state(a: Path, b: Path) -> None:
    (tensors, facts), (others, other_facts) = state_of(a), state_of(b)
    assert facts == other_facts and tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []


def killed_at(monkeypatch, step: int, config: TrainConfig) -> None:
    """Runs the training until it is killed before its step number `step` (from 0)."""
    advance = loop._Run.advance

    def until(self, batch):
        if self.step == step:
            raise KeyboardInterrupt
        advance(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._Run, "advance", until)
        train(config)


def test_what_a_run_leaves(make_set, config_of, tmp_path):
    folder = make_set(val=2)
    best = train(config_of(folder))
    run = tmp_path / "run"
    assert best == run / "best" and {path.name for path in run.iterdir()} == FILES
    tensors, facts = state_of(run)
    assert facts["step"] == 6 and 0 < facts["loss"] < 10
    assert all(value.isfinite().all() for value in tensors.values())
    report = log_of(run)[-1]
    assert report["step"] == 6 and report["validation"]["reports"][0]["images"] == 2

    refiner = DDPSRefiner.from_pretrained(best, device="cpu")
    assert refiner.config.labels.num_classes == 2 and refiner.config.labels.names == ("c0", "c1")
    assert refiner.config.inference.mix == report["validation"]["mix"]
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    weights = refiner.network.state_dict()
    assert all(torch.equal(weights[k], average[k]) for k in average)
    out = refiner.refine(folder / "val" / "images" / "val0.png", torch.zeros(64, 64, dtype=torch.int64))
    assert out.labels.shape == (64, 64)


def test_small_numbers_are_what_they_were_afterwards(make_set, config_of):
    train(config_of(make_set(), steps=1))
    assert torch.tensor(1e-40) * 0.5 > 0


def test_the_loss_is_logged(make_set, config_of, tmp_path):
    train(config_of(make_set(), steps=20, crop=64, batch_size=1))
    rows = log_of(tmp_path / "run")
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == [20] and 0 < losses[0]["loss"] < 10


@pytest.mark.parametrize("killed", [4, 6])
def test_a_killed_run_resumes_bit_for_bit(make_set, config_of, monkeypatch, tmp_path, killed):
    folder = make_set(val=1)
    config = config_of(folder, out=str(tmp_path / "killed"), steps=7, validate_every=2)
    killed_at(monkeypatch, killed, config)
    assert state_of(tmp_path / "killed")[1]["step"] == 3 * (killed // 3)
    torch.rand(5)  # another process would start from other global random numbers
    train(config)
    train(config_of(folder, out=str(tmp_path / "whole"), steps=7, validate_every=2))
    assert_same_state(tmp_path / "killed", tmp_path / "whole")
    for name in ("best", "last"):
        weights = [load_file(tmp_path / run / name / "model.safetensors") for run in ("killed", "whole")]
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[1])


def test_killed_before_the_first_save(make_set, config_of, monkeypatch, tmp_path):
    folder = make_set()
    config = config_of(folder, out=str(tmp_path / "killed"))
    killed_at(monkeypatch, 1, config)
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {"train.json"}
    train(config)
    train(config_of(folder, out=str(tmp_path / "whole")))
    assert_same_state(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(make_set, config_of, monkeypatch, tmp_path):
    config = config_of(make_set())
    train(config)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    monkeypatch.setattr(loop._Run, "advance", lambda *_: pytest.fail("trained again"))
    assert train(config) == tmp_path / "run" / "best"
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("change", [{"steps": 7}, {"seed": 1}, {"lr": 1e-3}])
def test_another_configuration_in_the_same_folder(make_set, config_of, tmp_path, change):
    folder = make_set()
    train(config_of(folder))
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    with pytest.raises(InputError, match="another --out"):
        train(config_of(folder, **change))
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


def test_the_seed_decides(make_set, config_of, tmp_path):
    folder = make_set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config_of(folder, out=str(tmp_path / name), seed=seed, steps=2))
    assert_same_state(tmp_path / "a", tmp_path / "b")
    a, c = (state_of(tmp_path / name)[0] for name in "ac")
    assert not torch.equal(a["network.change.weight"], c["network.change.weight"])


def test_loading_processes_change_nothing(make_set, config_of, tmp_path):
    folder = make_set()
    for workers in (0, 1):
        train(config_of(folder, out=str(tmp_path / str(workers)), workers=workers, steps=3))
    assert_same_state(tmp_path / "0", tmp_path / "1")


def test_several_data_sets_with_predictions(make_set, predict, config_of, tmp_path):
    folders = [make_set("one", classes=3, val=1), make_set("two", val=1)]
    for folder in folders:
        for split in ("train", "val"):
            predict(folder, tmp_path / "root" / folder.name / "seg", split)
    train(config_of(*folders, predictions=str(tmp_path / "root"), data_weights=(2.0, 1.0), steps=3))
    config = DDPSRefiner.from_pretrained(tmp_path / "run" / "last", device="cpu").config
    assert config.labels == LabelSpace()
    reports = log_of(tmp_path / "run")[-1]["validation"]["reports"]
    assert [report["set"] for report in reports] == ["one/seg", "two/seg"]


def test_a_segmentor_of_merged_classes_keeps_the_label_space_open(make_set, predict, config_of, tmp_path):
    folder = make_set(classes=3, val=1)
    for split in ("train", "val"):
        predict(folder, tmp_path / "root", split, merge=[0, 1, 1])
    train(config_of(folder, predictions=str(tmp_path / "root"), steps=2))
    assert DDPSRefiner.from_pretrained(tmp_path / "run" / "last", device="cpu").config.labels == LabelSpace()
    (report,) = log_of(tmp_path / "run")[-1]["validation"]["reports"]
    assert report["base_miou"] == pytest.approx(100)


def test_starting_from_other_weights(make_set, config_of, tiny_model, tmp_path):
    folder = make_set()
    first = train(config_of(folder, out=str(tmp_path / "first")))
    train(config_of(folder, out=str(tmp_path / "second"), init=str(first), lr=1e-8, steps=1, ema=0.0))
    a = load_file(first / "model.safetensors")["change.weight"]
    b = load_file(tmp_path / "second" / "last" / "model.safetensors")["change.weight"]
    torch.testing.assert_close(b, a, rtol=0, atol=1e-6)
    assert a.abs().sum() > 0
    other = replace(tiny_model, network=LogitsNetwork(image_widths=(8, 8), slot_widths=(4, 4)))
    with pytest.raises(InputError, match="other widths"):
        train(config_of(folder, out=str(tmp_path / "third"), init=str(first), model=other))
    assert not (tmp_path / "third").exists()


def test_what_cannot_be_trained_leaves_no_run_behind(make_set, config_of, tmp_path):
    folder = make_set()
    paper = DDPSConfig(network=FeaturesNetwork())
    for config in (
        config_of(folder, model=paper),
        config_of(tmp_path / "none"),
        config_of(folder, predictions=str(tmp_path / "none")),
        config_of(folder, data_weights=(1.0, 2.0)),
        config_of(folder, device="toaster"),
        config_of(folder, init="no such model"),
    ):
        with pytest.raises(InputError) as caught:
            train(config)
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_does_not_reach_the_weights(make_set, config_of, monkeypatch, tmp_path):
    def exploding(*_: object) -> Tensor:
        return sum(p.sum() for p in networks[0].parameters()) * float("inf")

    networks: list[SlotUNet] = []
    made = loop.new_network

    def remember(config):
        network, initialised = made(config)
        networks.append(network)
        return network, initialised

    monkeypatch.setattr(loop, "new_network", remember)
    monkeypatch.setattr(loop, "refinement_loss", exploding)
    train(config_of(make_set(), steps=2))
    assert all(value.isfinite().all() for value in networks[0].state_dict().values())


def test_learning_rate():
    config = TrainConfig(data=("a",), out="run", steps=100, warmup=10, lr=1.0)
    rates = [loop.learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1 and max(rates) == 1
    assert all(a > b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.01
    assert loop.learning_rate(config, 55) == pytest.approx(0.5)


def test_it_learns(make_set, config_of, tmp_path):
    """A segmentor that is wrong at one pixel in five, at random: a minute network finds the squares behind it."""
    folder, root = make_set(), tmp_path / "root"
    (root / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path in (folder / "train" / "masks").iterdir():
        wrong = (np.array(Image.open(path)) == 1) ^ (rng.random((64, 64)) < 0.2)
        foreground = np.where(wrong, 0.8, 0.2)
        np.savez(root / "train" / path.stem, probs=np.stack([1 - foreground, foreground]))
    config = config_of(
        folder, predictions=str(root), steps=60, batch_size=4, lr=1e-2, warmup=5, real_share=1.0, collage_share=0.0
    )
    train(replace(config, save_every=100))
    stream = CropStream([read_data_set(folder, "train", root)], replace(config, seed=99))
    held_out = collate([stream[index] for index in range(16)])

    def loss(network: SlotUNet) -> float:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            logits = training_logits(network.eval(), held_out, make_schedule("linear", 20), config, generator)
            return float(refinement_loss(logits, held_out, config))

    trained = DDPSRefiner.from_pretrained(tmp_path / "run" / "last", device="cpu").network
    assert isinstance(trained, SlotUNet)
    assert loss(trained) < 0.4 * loss(SlotUNet(config.model.network))


# One's own classes

SEGMENTOR = """
import numpy as np
from PIL import Image

def fit(images, masks):
    labels = np.concatenate([np.array(Image.open(mask)).ravel() for mask in masks])
    assert len(images) == len(masks) > 0 and set(labels) <= {0, 1, 255}

    def predict(image):
        foreground = np.clip((image[::2, ::2].mean(2) - 40) / 180, 0.05, 0.95)
        return np.stack([1 - foreground, foreground])

    return predict

def predict(image):
    return (image.mean(2) > 130).astype(int)
"""


@pytest.fixture
def agnostic(make_set, config_of, tmp_path) -> Path:
    """Weights for any classes, of two sets."""
    folders = make_set("one"), make_set("two", classes=3)
    return train(config_of(*folders, out=str(tmp_path / "agnostic"), steps=2))


def test_a_run_over_one_data_set_learns_its_classes_by_name(make_set, config_of, agnostic, tmp_path):
    assert load_config(agnostic).network.classes == 0
    folder = make_set("three", classes=3, val=1)
    config = own_classes(str(folder), str(tmp_path / "run"), str(agnostic), **settings_of(config_of(folder), lr=1e-8))
    train(config)
    found = load_config(tmp_path / "run" / "last")
    assert found.network.classes == 3 == found.labels.num_classes and found.network.max_slots == 4
    # it starts as what it was initialised with
    image, logits = folder / "val" / "images" / "val0.png", torch.randn(3, 64, 64)
    one, other = (DDPSRefiner.from_pretrained(path, device="cpu") for path in (agnostic, tmp_path / "run" / "last"))
    other = DDPSRefiner(replace(other.config, inference=one.config.inference), other.network, "cpu")
    difference = one.refine(image, logits).probs - other.refine(image, logits).probs
    assert difference.abs().max() < 3e-2


def test_weights_that_know_other_classes_start_those_anew(make_set, config_of, tmp_path):
    two, three = make_set("two", train=2), make_set("three", classes=3, train=2)
    first = train(config_of(two, out=str(tmp_path / "first"), lr=1e-2))
    for folder, same in ((two, True), (three, False)):
        config = own_classes(str(folder), str(tmp_path / folder.name), str(first), **settings_of(config_of(folder)))
        network, initialised = new_network(with_labels(config, [read_data_set(folder, "train", None)]))
        assert ("inform.weight" in initialised) == same and "change.weight" in initialised
        assert bool(network.inform.weight.abs().sum() > 0) == same
    groups = loop.parameter_groups(network, config, initialised)
    rates = {id(p): group["rate"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(network.parameters()))
    assert rates[id(network.change.weight)] == config.init_rate and rates[id(network.inform.weight)] == 1


def test_data_of_other_classes_than_the_networks(make_set, config_of, tiny_model):
    model = replace(tiny_model, labels=LabelSpace(4), network=replace(tiny_model.network, classes=4))
    with pytest.raises(InputError, match="data of 4 classes"):
        train(config_of(make_set(), model=model))
    with pytest.raises(InputError, match="batch_size 1"):
        train(config_of(make_set(), batch_size=1))


def test_without_a_val_split_some_training_images_are_held_out(make_set, config_of, tmp_path):
    folder = make_set(train=10)
    train(config_of(folder, steps=4, validate_every=2))
    reports = [row["validation"]["reports"] for row in log_of(tmp_path / "run") if "validation" in row]
    assert [report["images"] for (report,) in reports] == [2, 2]
    assert {p.name for p in (tmp_path / "run" / "examples").iterdir()} == {"step_000002.png", "step_000004.png"}
    assert "mBIoU" in (tmp_path / "run" / "curves.svg").read_text()


@pytest.mark.parametrize("kind", ["segmentor", "predictor"])
@pytest.mark.parametrize("val", [0, 2])
def test_a_users_segmentor(make_set, config_of, monkeypatch, tmp_path, kind, val):
    (tmp_path / "users_segmentor.py").write_text(SEGMENTOR)
    monkeypatch.chdir(tmp_path)
    folder = make_set(train=6, val=val)
    name = {"segmentor": "users_segmentor:fit", "predictor": "users_segmentor:predict"}[kind]
    config = config_of(folder, steps=2, folds=3, **{kind: name})
    train(config)
    made = tmp_path / "run" / "predictions"
    assert len(list((made / "train").iterdir())) == 6
    assert len(list((made / "val").iterdir()) if val else []) == val
    (report,) = log_of(tmp_path / "run")[-1]["validation"]["reports"]
    assert report["images"] == (val or 1) and report["set"] == "squares/predictions"
    (tmp_path / "users_segmentor.py").write_text("fit = predict = len")
    assert train(config) == tmp_path / "run" / "best"


def test_one_source_of_predictions(make_set, config_of, tmp_path):
    for settings in ({"segmentor": "m:f", "predictor": "m:f"}, {"segmentor": "m:f", "predictions": "p"}):
        with pytest.raises(InputError, match="one of them"):
            config_of(make_set("a"), **settings)
    with pytest.raises(InputError, match="one data set with segmentor"):
        config_of(make_set("b"), make_set("c"), segmentor="m:f")
    with pytest.raises(InputError, match="module"):
        train(config_of(make_set("d"), segmentor="no_such_module_at_all:fit"))
    assert not (tmp_path / "run").exists()


def settings_of(config: TrainConfig, **settings: object) -> dict[str, object]:
    """The tiny run's settings, for `own_classes`."""
    names = ("steps", "batch_size", "crop", "warmup", "validate_images", "amp", "device")
    return {**{name: getattr(config, name) for name in names}, **settings}


def load_config(folder: Path) -> DDPSConfig:
    return DDPSConfig.from_json((folder / "config.json").read_text())
