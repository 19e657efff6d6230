import inspect
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from torch import nn

from ddps import hub
from ddps.config import DDPSConfig, LogitsNetwork
from ddps.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = DDPSConfig(name="tiny", network=LogitsNetwork(image_widths=(4, 8), slot_widths=(4, 4)))


class Tiny(nn.Module):
    """Shapes that follow the config, with a buffer of every kind that real networks have."""

    def __init__(self, config: DDPSConfig):
        super().__init__()
        widths = config.network.image_widths
        self.stem = nn.Conv2d(3, widths[0], 3)
        self.norm = nn.BatchNorm2d(widths[0])
        self.wide = nn.Linear(widths[-1] ** 2, widths[-1] ** 2)


def save_tiny(parent: Path) -> tuple[Path, Tiny]:
    """A saved model, and the network whose weights it has."""
    torch.manual_seed(0)
    network = Tiny(CONFIG)
    return hub.save_weights(parent / "tiny", CONFIG, network.state_dict()), network


@pytest.fixture
def saved(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def folder(saved):
    return saved[0]


@pytest.fixture
def model(saved):
    return saved[1]


@pytest.fixture
def no_network(monkeypatch):
    """Every try to look up or reach a host is noted and fails."""
    tries = []

    def refuse(*args, **kwargs):
        tries.append(args)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tries


def cached(cache, folder, repo="org/name", names=("config.json", "model.safetensors")):
    """Lays a folder out as the Hub's cache does, as if it had been downloaded."""
    root = cache / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).write_bytes((folder / name).read_bytes())
    return snapshot


def edit_config(folder, **changes):
    data = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (data[part] if part else data)[name] = value
    (folder / "config.json").write_text(json.dumps(data))


def test_save_then_load_is_identity(folder, model):
    config, state, path = hub.load_weights(str(folder), Tiny)
    assert (config, path) == (CONFIG, folder)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    Tiny(config).load_state_dict(state, strict=True)


def test_half_weights_load_as_float32(tmp_path, model):
    folder = hub.save_weights(tmp_path / "half", CONFIG, model.state_dict(), half=True)
    _, state, _ = hub.load_weights(folder, Tiny)
    assert state["stem.weight"].dtype == torch.float32
    assert torch.equal(state["stem.weight"], model.stem.weight.half().float())
    assert state["norm.num_batches_tracked"].dtype == torch.int64


def test_save_writes_three_files_and_nothing_else(folder):
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text(encoding="utf-8") == hub.model_card(CONFIG)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
def test_others_may_read_what_the_umask_lets_them(tmp_path, model):
    before = os.umask(0o022)
    try:
        hub.save_weights(tmp_path / "m", CONFIG, model.state_dict())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()} == {0o644}


def test_save_keeps_the_given_card_and_makes_parents(tmp_path, model):
    folder = hub.save_weights(tmp_path / "a" / "b", CONFIG, model.state_dict(), "# mine\n")
    assert (folder / "README.md").read_text() == "# mine\n"


def test_a_save_that_fails_leaves_the_old_one(folder, model):
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    state = model.state_dict() | {"stem.weight": torch.full((4, 3, 3, 3), float("nan"))}
    with pytest.raises(InputError, match=r"NaN or infinity in 'stem\.weight'"):
        hub.save_weights(folder, DDPSConfig(name="other"), state, "other")
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


def test_save_into_a_file_is_refused(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder to save into"):
        hub.save_weights(tmp_path / "file", CONFIG, model.state_dict())


def test_missing_unexpected_and_misshaped_tensors_are_named(tmp_path, model):
    state = model.state_dict()
    del state["stem.bias"]
    state |= {"extra": torch.zeros(1), "norm.weight": torch.ones(5)}
    folder = hub.save_weights(tmp_path / "bad", CONFIG, state)
    with pytest.raises(InputError) as caught:
        hub.load_weights(folder, Tiny)
    message = str(caught.value)
    assert "missing 'stem.bias'" in message
    assert "unexpected 'extra'" in message
    assert "mis-shaped 'norm.weight (5,) instead of (4,)'" in message


def test_hostile_sizes_are_refused_before_they_are_allocated(folder):
    edit_config(folder, network__image_widths=[4, 10**9])
    with pytest.raises(InputError, match=r"network widths in \[4, 1024\]"):
        hub.load_weights(folder, Tiny)
    # Within the bounds, yet 4 TiB of weights if it were allocated.
    edit_config(folder, network__image_widths=[4, 1024])
    with pytest.raises(InputError, match=r"mis-shaped 'wide\.bias"):
        hub.load_weights(folder, Tiny)


def test_a_config_that_makes_no_network(folder):
    def build(config):
        return nn.GroupNorm(3, config.network.image_widths[0])

    with pytest.raises(InputError, match="a config that makes a network; got num_channels"):
        hub.load_weights(folder, build)


def test_a_newer_format_says_upgrade(folder):
    edit_config(folder, format_version=99, unheard_of=1)
    with pytest.raises(InputError, match="pip install -U ddps"):
        hub.load_weights(folder, Tiny)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b"[" * 10**6, b" " * (hub.MAX_CONFIG_BYTES + 1)])
def test_a_bad_config_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError):
        hub.load_weights(folder, Tiny)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_names_the_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=re.escape(f"{folder / name}; got no such file")):
        hub.load_weights(folder, Tiny)


def test_embedded_names_come_before_folders_of_that_name(tmp_path, folder, monkeypatch, no_network):
    monkeypatch.setattr(hub, "_embedded_folder", lambda: folder.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    Path("tiny").mkdir()
    assert hub.embedded_names() == ("tiny",)
    assert hub.load_weights("tiny", Tiny)[2] == folder
    with pytest.raises(InputError, match=r"config\.json; got no such file"):
        hub.load_weights(Path("tiny"), Tiny)
    assert not no_network


@pytest.mark.parametrize(
    "source",
    [
        "",
        "unheard-of",
        "../tiny",
        "universal/..",
        "org/..",
        "../../nothing",
        "org/na..me",
        "/etc/nothing",
        "a/b/c",
        "org/name\n",
        "org/näme",
        "-x/name",
        "~/nothing",
        "x" * 5000,
        "a\0b",
        "https://host/org/name",
        Path("org/name"),
    ],
)
def test_what_is_neither_lists_the_three(source, folder, monkeypatch, no_network):
    monkeypatch.setattr(hub, "_embedded_folder", lambda: folder.parent)
    with pytest.raises(InputError) as caught:
        hub.load_weights(source, Tiny)
    assert "embedded weights ('tiny'), an existing folder, or a Hub id 'org/name'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not no_network


@pytest.mark.parametrize("revision", ["../../secrets", "/etc", "a/../b", "", "a//b", "a\\b", "a\nb"])
def test_a_revision_cannot_lead_out_of_the_cache(revision, tmp_path, no_network):
    with pytest.raises(InputError, match="a branch, tag or commit as revision"):
        hub.load_weights("org/name", Tiny, revision=revision, cache_dir=tmp_path)
    assert not no_network


def test_revision_of_a_folder_is_refused(folder):
    with pytest.raises(InputError, match="a Hub id together with revision"):
        hub.load_weights(folder, Tiny, revision="main")


def test_cached_files_load_without_the_network(tmp_path, folder, model, no_network):
    snapshot = cached(tmp_path / "cache", folder)
    for revision in (None, "main", COMMIT):
        config, state, path = hub.load_weights(
            "org/name", Tiny, revision=revision, cache_dir=tmp_path / "cache", local_files_only=True
        )
        assert config == CONFIG
        assert path == snapshot
        assert torch.equal(state["stem.weight"], model.stem.weight)
    assert not no_network


@pytest.mark.parametrize("names", [(), ("config.json",)])
def test_what_is_not_cached_is_named_without_the_network(tmp_path, folder, names, no_network):
    cached(tmp_path / "cache", folder, names=names)
    with pytest.raises(InputError, match=r"in the cache; got no such file there, and local_files_only is set;"):
        hub.load_weights("org/name", Tiny, cache_dir=tmp_path / "cache", local_files_only=True)
    assert not no_network


def test_a_bad_config_is_refused_before_the_weights_are_asked_for(tmp_path, folder, monkeypatch):
    edit_config(folder, format_version=99)
    asked = []

    def download(repo_id, name, **options):
        asked.append(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(InputError, match="upgrading"):
        hub.load_weights("org/name", Tiny)
    assert asked == ["config.json"]


def test_both_files_come_from_one_commit(tmp_path, folder, monkeypatch):
    snapshot = cached(tmp_path / "cache", folder)
    asked = []

    def download(repo_id, name, **options):
        asked.append((name, options["revision"], options["token"]))
        return str(snapshot / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub.load_weights("org/name", Tiny, revision="v1.0", token="secret")
    assert asked == [("config.json", "v1.0", "secret"), ("model.safetensors", COMMIT, "secret")]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (errors.GatedRepoError, "a gated model"),
        (errors.RepositoryNotFoundError, "no such model, or a private one"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "no such file there"),
        (errors.EntryNotFoundError, "no such file; try a model that ddps saved"),
        (errors.HfHubHTTPError, "got 500 server error; try again"),
        (ConnectionError, "got 500 server error; try again"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(kind, said, monkeypatch):
    def fail(*args, **options):
        # Their constructors want a response of the HTTP library in use, which differs between versions.
        error = kind.__new__(kind)
        error.args = ("500\nserver error",)
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(InputError) as caught:
        hub.load_weights("org/name", Tiny)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_down_is_said_in_one_line(tmp_path, no_network, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(InputError) as caught:
        hub.load_weights("org/name", Tiny, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


class RecordingApi:
    """Stands where the Hub would be: notes what a push sends."""

    calls: ClassVar[list] = []

    def __init__(self, **options):
        self.calls.append(("api", options))

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))
        return f"hub:{repo_id}"

    def create_branch(self, repo_id, **options):
        self.calls.append(("branch", repo_id, options))

    def upload_folder(self, **options):
        self.calls.append(("upload", options))


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(RecordingApi, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", RecordingApi)
    return RecordingApi


def test_push_sends_the_three_files_in_one_commit(folder, api):
    (folder / "secret.txt").write_text("not for the Hub")
    assert hub.push(folder, "org/name", token="t", private=True, revision="v2") == "hub:org/name"
    (_, made), (_, repo, created), (_, _, branch), (_, uploaded) = api.calls
    assert made["token"] == "t"
    assert (repo, created["private"], created["exist_ok"]) == ("org/name", True, True)
    assert branch == {"branch": "v2", "exist_ok": True}
    assert uploaded["folder_path"] == folder
    assert uploaded["revision"] == "v2"
    assert sorted(uploaded["allow_patterns"]) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("missing", ["README.md", "config.json", "model.safetensors"])
def test_push_refuses_an_incomplete_folder_before_it_asks_the_hub(folder, api, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match=missing):
        hub.push(folder, "org/name")
    assert not api.calls


@pytest.mark.parametrize("repo_id", ["name", "org/../x", "a/b/c", "", "org/na me"])
def test_push_refuses_a_bad_id(folder, api, repo_id):
    with pytest.raises(InputError, match="a Hub id 'org/name'"):
        hub.push(folder, repo_id)
    assert not api.calls


def test_push_fits_the_installed_client():
    # The stand-in above takes any keyword; the real methods must know these.
    create = inspect.signature(huggingface_hub.HfApi.create_repo).parameters
    branch = inspect.signature(huggingface_hub.HfApi.create_branch).parameters
    upload = inspect.signature(huggingface_hub.HfApi.upload_folder).parameters
    assert {"repo_id", "private", "exist_ok"} <= set(create)
    assert {"repo_id", "branch", "exist_ok"} <= set(branch)
    assert {"repo_id", "folder_path", "allow_patterns", "revision", "commit_message"} <= set(upload)
