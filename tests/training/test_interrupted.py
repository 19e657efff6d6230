"""Training beside somebody who takes its files away, and after a run that a kill or a full disk has cut."""

import errno
import json
import shutil

import pytest

from ddps.cli.main import main
from ddps.errors import InputError
from ddps.training import TrainConfig, loop, train
from ddps.training.checkpoint import read_facts


@pytest.fixture
def config_of(make_set, tmp_path, tiny_model):
    folder = make_set(train=8, val=1)

    def make(name, **settings):
        values = {
            "data": (str(folder),), "out": str(tmp_path / name), "steps": 6, "batch_size": 2, "crop": 32, "warmup": 2,
            "save_every": 2, "validate_every": 3, "validate_images": 1, "amp": "off", "device": "cpu",
            "model": tiny_model,
        }  # fmt: skip
        return TrainConfig(**{**values, **settings})

    return make


def before_step(monkeypatch, step, act):
    advance = loop._Run.advance

    def doing(self, batch):
        if self.step == step:
            act()
        advance(self, batch)

    monkeypatch.setattr(loop._Run, "advance", doing)


def test_images_that_go_away_end_the_run_and_nothing_is_lost(config_of, monkeypatch, tmp_path):
    """Those that a run has not read yet: the others it keeps in memory."""
    config = config_of("run")
    images = tmp_path / "squares" / "train" / "images"
    with monkeypatch.context() as patch, pytest.raises((InputError, OSError)) as caught:
        before_step(patch, 2, lambda: images.rename(tmp_path / "aside"))
        train(config)
    assert "\n" not in str(caught.value) and "train" in str(caught.value)
    assert read_facts(tmp_path / "run" / "state.safetensors")["step"] == 2
    (tmp_path / "aside").rename(images)
    train(config)
    train(config_of("whole"))
    for name in ("state.safetensors", "best/model.safetensors", "last/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_folder_that_goes_away_is_said_in_one_line(
    config_of, monkeypatch, tmp_path, capsys, make_set, tiny_model
):
    config = config_of("run")
    before_step(monkeypatch, 3, lambda: shutil.rmtree(tmp_path / "run"))
    (tmp_path / "model.json").write_text(tiny_model.to_json())
    options = ("steps", "batch_size", "crop", "warmup", "save_every", "validate_every", "validate_images", "amp")
    settings = [word for name in options for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]
    files = ["--data", *config.data, "--out", config.out, "--model-config", str(tmp_path / "model.json")]
    assert main(["train", *files, *settings, "--device", "cpu"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1 and errors[0].startswith("ddps: error: ") and "run" in errors[0]


def test_a_line_of_the_log_that_was_cut_is_taken_away(config_of, monkeypatch, tmp_path):
    config = config_of("run", steps=25, save_every=20, validate_every=20)

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        before_step(patch, 22, kill)
        train(config)
    log = tmp_path / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 22, "lo')
    train(config)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 20, 25]


def test_a_full_disk_keeps_the_last_checkpoint_and_names_the_next(config_of, monkeypatch, tmp_path):
    config = config_of("run")

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"No space left on device: '.*run.*'"):
        before_step(patch, 3, lambda: patch.setattr("ddps.atomic.os.fsync", lambda _: full()))
        train(config)
    train(config)
    train(config_of("whole"))
    state = "state.safetensors"
    assert (tmp_path / "run" / state).read_bytes() == (tmp_path / "whole" / state).read_bytes()


def test_what_a_killed_run_left_is_removed(config_of, tmp_path):
    run = tmp_path / "run"
    train(config_of("run"))
    left = [
        folder / ".x.safetensors.0123456789ab.tmp" for folder in (run, run / "best", run / "last", run / "examples")
    ]
    for path in left:
        path.write_bytes(b"half")
    train(config_of("run"))
    # beside weights it tells what a kill did, until they are saved again
    assert [path.exists() for path in left] == [False, True, True, False]
    (run / "state.safetensors").unlink()
    train(config_of("run"))
    assert not any(path.exists() for path in left)


def test_what_was_killed_before_its_settings_were_written(config_of, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".train.json.0123456789ab.tmp").write_bytes(b"{")
    train(config_of("run", steps=1))
    assert not list((tmp_path / "run").glob(".*"))
