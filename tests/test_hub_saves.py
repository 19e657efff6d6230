"""Saves that are refused, killed, or follow one that was."""

import contextlib
import dataclasses
import os

import pytest

from ddps import InputError, atomic, hub
from ddps.config import LabelSpace

from .test_hub import CONFIG, Tiny, edit_config, save_tiny


def test_a_config_too_long_to_be_loaded_is_not_saved(tmp_path):
    _, model = save_tiny(tmp_path)
    labels = LabelSpace(30_000, tuple(f"a class with a longer name, {k}" for k in range(30_000)))
    with pytest.raises(InputError, match="a config of up to"):
        hub.save_weights(tmp_path / "m", dataclasses.replace(CONFIG, labels=labels), model.state_dict())
    assert not (tmp_path / "m").exists()


def test_a_save_removes_what_a_killed_one_left(tmp_path):
    folder, model = save_tiny(tmp_path)
    left = folder / ".model.safetensors.0123456789ab.tmp"
    left.write_bytes(b"half")
    hub.save_weights(folder, CONFIG, model.state_dict())
    assert left.exists() == (not atomic.LOCKS)


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_a_save_killed_between_its_files_is_not_taken_for_a_model(tmp_path, monkeypatch, stopped):
    """After the first rename the weights are new and the config is old, and both fit each other's shapes."""
    folder, model = save_tiny(tmp_path)

    class Killed(BaseException):
        pass

    replace, unlink = os.replace, os.unlink
    renames = []

    def rename(*paths):
        renames.append(paths)
        if len(renames) > stopped:
            raise Killed
        replace(*paths)

    other = dataclasses.replace(CONFIG, inference=dataclasses.replace(CONFIG.inference, mix=0.25))
    with monkeypatch.context() as patch, pytest.raises(Killed) if stopped < 3 else contextlib.nullcontext():
        patch.setattr(atomic.os, "replace", rename)
        patch.setattr(atomic.os, "unlink", lambda path: None)  # as a killed process would leave them
        hub.save_weights(folder, other, model.state_dict())
    if stopped == 1:
        with pytest.raises(InputError, match=r"a save was stopped halfway; try saving it again"):
            hub.load_weights(folder, Tiny)
    else:
        assert hub.load_weights(folder, Tiny)[0] == other
    assert os.unlink is unlink
    hub.save_weights(folder, CONFIG, model.state_dict())
    assert hub.load_weights(folder, Tiny)[0] == CONFIG
    edit_config(folder, inference__mix=0.5)
    assert hub.load_weights(folder, Tiny)[0].inference.mix == 0.5


def test_a_second_kill_does_not_hide_the_first(tmp_path, monkeypatch):
    """The next save is killed before it has written anything: the folder is still half a save."""
    folder, model = save_tiny(tmp_path)
    other = dataclasses.replace(CONFIG, name="other")
    whole = hub.save_weights(folder.parent / "other", other, model.state_dict())
    (folder / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    (folder / ".config.json.0123456789ab.tmp").write_bytes((whole / "config.json").read_bytes())

    def kill(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hub, "atomic_write", kill)
        hub.save_weights(folder, other, model.state_dict())
    for use in (lambda: hub.load_weights(folder, Tiny), lambda: hub.push(folder, "org/name")):
        with pytest.raises(InputError, match="a save was stopped halfway"):
            use()
