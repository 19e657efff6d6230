"""The paper's training end to end on the CPU: what is frozen, what a stage starts from, resuming, every setting."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ddps import DDPSRefiner
from ddps.config import ScheduleConfig
from ddps.errors import InputError
from ddps.training.paper import read_segmentor, train_recipe
from ddps.training.paper.train import _Training

from .conftest import Strided, changed, tiny_recipe


def state_of(folder: Path) -> tuple[dict[str, Tensor], dict]:
    path = folder / "state.safetensors"
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["facts"])


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name].nan_to_num(), b[name].nan_to_num())}


def differing_shared(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
    """Of those that have one shape."""
    shared = {name for name in a if a[name].shape == b[name].shape}
    return differing({name: a[name] for name in shared}, {name: b[name] for name in shared})


def snapshots(monkeypatch) -> list[tuple[str, dict[str, Tensor], dict[str, Tensor]]]:
    """(stage, weights, average) before every step."""
    seen = []
    advance = _Training._advance

    def record(self, batch):
        copies = ({k: v.clone() for k, v in part.items()} for part in (self.network.state_dict(), self.average))
        seen.append((self.stage.name, *copies))
        advance(self, batch)

    monkeypatch.setattr(_Training, "_advance", record)
    return seen


def killed_at(monkeypatch, step: int, run, segmentor=None) -> None:
    advance = _Training._advance

    def until(self, batch):
        if self.step == step:
            raise KeyboardInterrupt
        advance(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Training, "_advance", until)
        train_recipe(run, segmentor)


def test_what_a_run_leaves(run_of, segformer_dir, tmp_path):
    run = run_of(backbone=str(segformer_dir))
    best = train_recipe(run)
    folder = tmp_path / "run"
    files = {"train.json", "log.jsonl", "state.safetensors", "single_step", "best", "last"}
    assert best == folder / "best" and {path.name for path in folder.iterdir()} == files
    rows = log_of(folder)
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == list(range(1, 9))
    assert [row["stage"] for row in losses] == ["single_step"] * 4 + ["multi_step"] * 4
    reports = [row["validation"] for row in rows if "validation" in row]
    assert len(reports) == 2 and all(r["images"] == 2 and r["base"]["miou"] >= 0 for r in reports)

    refiner = DDPSRefiner.from_pretrained(best, device="cpu")
    labels = refiner.config.labels
    assert labels.names == ("c0", "c1", "c2") and labels.void_first and labels.ignore_index == 255
    out = refiner.refine(tmp_path / "squares" / "val" / "images" / "val0.png")
    assert out.labels.shape == (64, 64) and set(np.unique(out.labels)) <= {0, 1, 2, 255}
    single = DDPSRefiner.from_pretrained(folder / "single_step", device="cpu").config.inference
    assert (single.sampler, single.steps) == ("single", 1) and refiner.config.inference.sampler == "free"


def test_frozen_parts_keep_their_bits(run_of, segformer_dir, tmp_path, monkeypatch):
    segmentor = read_segmentor(segformer_dir, tiny_recipe().model)
    before = {name: value.clone() for name, value in segmentor.state_dict().items()}
    seen = snapshots(monkeypatch)
    train_recipe(run_of(), segmentor)
    assert differing(segmentor.state_dict(), before) == set()
    backbone = {k: v for k, v in weights_of(tmp_path / "run" / "last").items() if k.startswith("backbone.")}
    own = {f"backbone.{name}": value for name, value in segmentor.backbone.state_dict().items()}
    assert backbone and differing(backbone, own) == set()

    first, second, last = seen[0], seen[4], state_of(tmp_path / "run")[0]
    single = differing(seen[3][1], first[1])
    # transformers' head is no fusion, so that is trained at first, with its statistics
    assert any(name.startswith("convs.0.bn.running") for name in single) and "embed.weight" not in single
    multi = differing({k: last[f"network.{k}"] for k in second[1]}, second[1])
    assert multi and all(name.startswith(("unet.", "conv_seg_new.")) for name in multi)
    averages = differing({k: last[f"average.{k}"] for k in second[1]}, second[1])
    assert averages and all(name.startswith(("unet.", "conv_seg_new.")) for name in averages)


def test_a_given_fusion_is_frozen_from_the_start(run_of, segformer_dir, tmp_path, monkeypatch):
    whole = train_recipe(run_of(backbone=str(segformer_dir), out=str(tmp_path / "whole")))
    seen = snapshots(monkeypatch)
    train_recipe(run_of(backbone=str(whole)))
    given = weights_of(whole)
    for name, value in seen[0][1].items():
        if name.startswith(("convs.", "fusion_conv.")):
            assert torch.equal(value, given[name])
    assert not torch.equal(seen[0][1]["unet.init_conv.weight"], given["unet.init_conv.weight"])
    last = weights_of(tmp_path / "run" / "last")
    assert all(name.startswith(("unet.", "conv_seg_new.")) for name in differing(last, seen[0][1] | {
        k: v for k, v in given.items() if k.startswith("backbone.")
    }))  # fmt: skip


def test_multi_step_starts_from_the_average_of_single_step(run_of, tmp_path, monkeypatch):
    seen = snapshots(monkeypatch)
    train_recipe(run_of(), Strided())
    (before, weights, average), (after, start, start_average) = seen[3], seen[4]
    assert (before, after) == ("single_step", "multi_step")
    assert differing(weights, start) and differing(average, start)  # one more step was made, and averaged
    assert differing(start, start_average) == set()
    saved = weights_of(tmp_path / "run" / "single_step")
    assert differing(saved, start) == set()


def test_the_average_is_taken_every_so_often(run_of, monkeypatch):
    seen = snapshots(monkeypatch)
    train_recipe(run_of(), Strided())
    name = "unet.init_conv.weight"
    averages = [average[name] for _, _, average in seen[:4]]
    # every 2 iterations, with momentum 0.5; seen[k] is what k steps have left
    assert torch.equal(averages[0], averages[1]) and torch.equal(averages[2], averages[3])
    torch.testing.assert_close(averages[2], (averages[0] + seen[2][1][name]) / 2)


@pytest.mark.parametrize("killed", [2, 4, 5, 7])
def test_a_killed_run_resumes_bit_for_bit(run_of, tmp_path, monkeypatch, killed):
    recipe = changed(tiny_recipe(), objective={"condition_dropout": 0.3})
    run = run_of(recipe, out=str(tmp_path / "killed"))
    killed_at(monkeypatch, killed, run, Strided())
    torch.rand(5)  # another process would start from other global random numbers
    train_recipe(run, Strided())
    train_recipe(replace(run, out=str(tmp_path / "whole")), Strided())
    (tensors, facts), (others, other_facts) = (state_of(tmp_path / name) for name in ("killed", "whole"))
    assert facts == other_facts and differing(tensors, others) == set()
    for name in ("single_step", "best", "last"):
        assert differing(*(weights_of(tmp_path / run / name) for run in ("killed", "whole"))) == set()


def test_a_finished_run_is_left_as_it_is(run_of, tmp_path, monkeypatch):
    train_recipe(run_of(), Strided())
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    monkeypatch.setattr(_Training, "_advance", lambda *_: pytest.fail("trained again"))
    assert train_recipe(run_of(), Strided()) == tmp_path / "run" / "best"
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    with pytest.raises(InputError, match="another --out"):
        train_recipe(run_of(seed=1), Strided())


MODEL = tiny_recipe().model
SETTINGS = {
    "kernel": {"model": replace(MODEL, schedule=ScheduleConfig("linear", 4, "absorbing"))},
    "schedule": {"model": replace(MODEL, schedule=ScheduleConfig("cosine", 4))},
    "steps": {"model": replace(MODEL, schedule=ScheduleConfig("linear", 8))},
    "dropout": {"model": replace(MODEL, network=replace(tiny_recipe().network, dropout=0.5))},
    "noised truth": {"objective": {"noised": "ground_truth"}},
    "noised segmentor": {"objective": {"noised": "segmentor"}},
    "condition dropout": {"objective": {"condition_dropout": 0.9}},
    "resize": {"data": {"resize": (0.5, 0.6)}},
    "fit": {"data": {"fit": (48, 48)}},
    "crop": {"data": {"crop": 48}},
    "one class": {"data": {"most_of_one_class": 0.4}},
    "flip": {"data": {"flip": 0.0}},
    "photometric": {"data": {"photometric": False}},
    "halved": {"multi_step": {"halve_every": 1}},
    "trained fusion": {"multi_step": {"fusion": "trained"}},
    "trained embedding": {"multi_step": {"embedding": "trained"}},
    "batch": {"optimizer": {"batch_size": 1}},
    "lr": {"optimizer": {"lr": 1e-4}},
    "betas": {"optimizer": {"betas": (0.5, 0.5)}},
    "weight decay": {"optimizer": {"weight_decay": 1.0}},
    "warm-up": {"optimizer": {"warmup": 0}},
    "warm-up from": {"optimizer": {"warmup_lr": 1e-3}},
    "clip": {"optimizer": {"clip": 1e-3}},
    "momentum": {"optimizer": {"ema_momentum": 0.1}},
    "average": {"optimizer": {"ema_every": 3}},
    "precision": {"report": {"amp": "bf16"}},
}


@pytest.fixture(scope="module")
def as_it_is() -> dict:
    return {}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_an_effect(run_of, tmp_path, as_it_is, name):
    """One step of the first stage, three of the second."""
    quick = changed(tiny_recipe(), single_step={"iterations": 1}, multi_step={"iterations": 3})
    if not as_it_is:
        train_recipe(run_of(quick, out=str(tmp_path / "plain")), Strided())
        as_it_is.update(weights_of(tmp_path / "plain" / "last"))
    train_recipe(run_of(changed(quick, **SETTINGS[name])), Strided())
    got = weights_of(tmp_path / "run" / "last")
    assert {key for key in differing_shared(got, as_it_is) if not key.startswith("log_")}
    assert all(value.isfinite().all() for key, value in got.items() if not key.startswith("log_"))


def test_starting_from_a_model(run_of, tmp_path, monkeypatch):
    first = train_recipe(run_of(out=str(tmp_path / "first")), Strided())
    seen = snapshots(monkeypatch)
    only_multi = changed(tiny_recipe(), single_step={"iterations": 0})
    train_recipe(run_of(only_multi, init=str(first)), Strided())
    assert {stage for stage, _, _ in seen} == {"multi_step"}
    assert differing(seen[0][1], weights_of(first)) == set()
    assert not (tmp_path / "run" / "single_step").exists()
    other = changed(only_multi, model=replace(MODEL, schedule=ScheduleConfig("cosine", 8)))
    train_recipe(run_of(other, init=str(first), out=str(tmp_path / "other")), Strided())
    assert {n for n in differing_shared(seen[-4][1], weights_of(first)) if not n.startswith("log_")} == set()
    assert seen[-4][1]["log_at"].shape == (8,)
    kernel = changed(only_multi, model=replace(MODEL, schedule=ScheduleConfig("linear", 4, "absorbing")))
    with pytest.raises(InputError, match="the network and the kernel"):
        train_recipe(run_of(kernel, init=str(first), out=str(tmp_path / "x")), Strided())


def test_single_step_alone(run_of, tmp_path):
    best = train_recipe(run_of(changed(tiny_recipe(), multi_step={"iterations": 0})), Strided())
    assert DDPSRefiner.from_pretrained(best, device="cpu").config.inference.sampler == "single"


def test_any_other_network_makes_a_model_of_features(run_of, tmp_path):
    best = train_recipe(run_of(), Strided())
    refiner = DDPSRefiner.from_pretrained(best, device="cpu")
    assert refiner.config.backbone is None
    image = tmp_path / "squares" / "val" / "images" / "val0.png"
    pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        features = Strided()(pixels).features
    assert refiner.refine(image, features=features).labels.shape == (64, 64)


def test_predictions_from_files_can_be_noised(run_of, predict, tmp_path):
    class Silent(Strided):
        has_logits = False

        def forward(self, image):
            return replace(super().forward(image), logits=None)

    recipe = changed(tiny_recipe(), objective={"noised": "segmentor"})
    with pytest.raises(InputError, match="--predictions"):
        train_recipe(run_of(recipe), Silent())
    assert not (tmp_path / "run").exists()
    run = run_of(recipe, predictions=str(tmp_path / "predictions"))
    for split in ("train", "val"):
        predict(Path(run.data), tmp_path / "predictions", split)
    train_recipe(run, Silent())
    report = [row["validation"] for row in log_of(tmp_path / "run") if "validation" in row][-1]
    assert report["base"]["miou"] == pytest.approx(100)


def test_without_void_among_the_networks_classes(run_of):
    best = train_recipe(run_of(tiny_recipe(void_first=False)), Strided())
    config = DDPSRefiner.from_pretrained(best, device="cpu").config
    assert config.network.num_classes == 3 and not config.labels.void_first


def test_what_cannot_be_trained_leaves_no_run_behind(run_of, segformer_dir, tmp_path):
    frozen = changed(tiny_recipe(), single_step={"fusion": "frozen"})
    wider = replace(
        MODEL, network=replace(tiny_recipe().network, num_classes=5), labels=replace(MODEL.labels, num_classes=4)
    )
    b0 = replace(MODEL, backbone=replace(MODEL.backbone, depths=(2, 1)))
    for run, segmentor in (
        (run_of(), None),
        (run_of(frozen), Strided()),
        (run_of(changed(tiny_recipe(), model=wider)), Strided()),
        (run_of(data=str(tmp_path / "none")), Strided()),
        (run_of(device="toaster"), Strided()),
        (run_of(init="no such model"), Strided()),
        (run_of(predictions=str(tmp_path)), Strided()),
        (run_of(backbone=str(tmp_path)), None),
        (run_of(changed(tiny_recipe(), model=b0), backbone=str(segformer_dir)), None),
    ):
        with pytest.raises(InputError) as caught:
            train_recipe(run, segmentor)
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_it_learns(run_of, tmp_path):
    """Three classes of different brightness, told apart from features that hold it."""
    recipe = changed(
        tiny_recipe(),
        single_step={"iterations": 60},
        multi_step={"iterations": 20},
        optimizer={"lr": 5e-3, "batch_size": 4, "ema_momentum": 0.3, "ema_every": 1},
        data={"photometric": False},
    )
    train_recipe(run_of(recipe), Strided())
    reports = [row["validation"]["refined"]["miou"] for row in log_of(tmp_path / "run") if "validation" in row]
    assert reports[-1] > 60


SCRIPT = """
import sys
from tests.training.paper.conftest import Strided
from ddps.training.paper import PaperRun, train_recipe
from ddps.training.paper.train import _Training

run_all = _Training.run_all

def and_tell(self):
    folder = run_all(self)
    print([float(v.double().nan_to_num(neginf=0).sum()) for v in self.network.state_dict().values()])
    return folder

_Training.run_all = and_tell
train_recipe(PaperRun.from_json(sys.stdin.read()), Strided())
"""


def test_several_processes_make_one_model(run_of, tmp_path):
    """Two ranks, other crops on each, a trained fusion: weights and batch statistics are the same on both."""
    recipe = changed(
        tiny_recipe(), single_step={"iterations": 2}, multi_step={"iterations": 2}, report={"save_every": 1}
    )
    run = run_of(recipe)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = str(Path(__file__).resolve().parents[3])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": root}
    ranks = []
    for rank in ("0", "1"):
        environment = {**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
        pipe = subprocess.PIPE
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                cwd=root,
                text=True,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=environment,
            )
        )
        ranks[-1].stdin.write(run.to_json())
        ranks[-1].stdin.close()
    told = []
    for process in ranks:
        told.append(process.stdout.read())
        said = process.stderr.read()
        assert process.wait(timeout=300) == 0, said
    assert told[0] and told[0] == told[1]
    assert state_of(tmp_path / "run")[1]["step"] == 4
    report = [row["validation"] for row in log_of(tmp_path / "run") if "validation" in row][-1]
    assert report["images"] == 2
    train_recipe(run_of(recipe, out=str(tmp_path / "alone")), Strided())
    assert differing(weights_of(tmp_path / "alone" / "last"), weights_of(tmp_path / "run" / "last"))
