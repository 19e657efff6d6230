"""Loading from and pushing to a Hub on loopback, with the real huggingface_hub."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from .hub_process import Worker, another, contents, digest, environment
from .hub_server import Fault, HubServer

WEIGHTS = "GET /storage/"
REPORT = {
    "images": 2,
    "base": {"miou": 60.0, "mbiou": 40.0, "accuracy": 90.0},
    "refined": {"miou": 62.5, "mbiou": 44.0, "accuracy": 91.0},
}


@pytest.fixture(scope="module")
def shared_server():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared_worker(shared_server, tmp_path_factory):
    worker = Worker(environment(shared_server.endpoint, tmp_path_factory.mktemp("home")))
    yield worker
    worker.close()


@pytest.fixture
def server(shared_server, tiny_model_dir):
    """The Hub with nothing but org/model, as good as new."""
    for part in (shared_server.repos, shared_server.large, shared_server.faults, shared_server.asked):
        part.clear()
    shared_server.add("org/model", contents(tiny_model_dir))
    return shared_server


@pytest.fixture
def worker(shared_worker, server, tmp_path):
    """The worker, whose cache is this test's own."""

    class Cached:
        cache = tmp_path / "cache"

        def load(self, source="org/model", **options):
            return shared_worker("load", source=source, cache_dir=self.cache, **options)

        def refused(self, source="org/model", **options):
            return shared_worker.refused("load", source=source, cache_dir=self.cache, **options)

    return Cached()


def cached_files(cache):
    """Blobs and half files of a cache, which need not exist."""
    return sorted(path.name for path in cache.glob("**/blobs/*"))


# Loading


def test_what_is_loaded_is_what_was_saved(server, worker, tiny_model_dir):
    answer = worker.load()
    assert answer == {
        "name": "tiny",
        "commit": server.repos["org/model"].refs["main"],
        "digest": digest(tiny_model_dir),
    }


def test_a_second_load_asks_for_no_file_again(server, worker):
    first = worker.load()
    server.asked.clear()
    assert worker.load() == first
    assert not server.paths("GET", "resolve") and not server.paths("GET", "storage")


def test_a_pinned_revision_stays_what_it_was(server, worker, tiny_model_dir, tmp_path):
    old = server.repos["org/model"].refs["main"]
    server.repos["org/model"].refs["v1.0"] = old
    new = server.add("org/model", contents(another(tiny_model_dir, tmp_path)))
    assert worker.load()["commit"] == new
    for pin in ("v1.0", old):
        answer = worker.load(revision=pin)
        assert (answer["commit"], answer["digest"]) == (old, digest(tiny_model_dir))
    assert worker.load()["digest"] != digest(tiny_model_dir)


def test_a_branch_with_a_slash_is_one_revision(server, worker):
    server.repos["org/model"].refs["runs/7"] = server.repos["org/model"].refs["main"]
    assert worker.load(revision="runs/7")["name"] == "tiny"


def test_a_commit_between_the_two_files_does_not_mix_them(server, worker, tiny_model_dir, tmp_path):
    old = server.repos["org/model"].refs["main"]
    newer = contents(another(tiny_model_dir, tmp_path))
    server.faults.append(Fault("GET .*config.json", times=1, before=lambda: server.add("org/model", newer)))
    answer = worker.load()
    assert (answer["commit"], answer["digest"]) == (old, digest(tiny_model_dir))
    assert worker.load()["commit"] == server.repos["org/model"].refs["main"] != old


def test_a_private_model_takes_its_owners_token(server, worker, tiny_model_dir):
    server.add("org/private", contents(tiny_model_dir), private=True)
    assert worker.load("org/private", token="hf_owner")["name"] == "tiny"
    # The storage of large files refuses requests that carry the token, so it was not sent there.
    assert all("Authorization" not in asked.headers for asked in server.asked if "/storage/" in asked.path)


@pytest.mark.parametrize("token", [None, False, "hf_reader"])
def test_a_private_model_looks_like_none_to_others(server, worker, tiny_model_dir, token):
    server.add("org/private", contents(tiny_model_dir), private=True)
    message = worker.refused("org/private", token=token)
    assert "expected org/private/config.json on the Hub; got no such model, or a private one; try checking" in message
    assert "token=" in message and "hf auth login" in message


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("org/nothing", {}, "got no such model, or a private one"),
        ("org/model", {"revision": "v9"}, "at revision v9 on the Hub; got no such revision; try a branch, tag"),
        ("org/model", {"revision": "0" * 40}, "got no such revision"),
        ("org/model", {"token": "hf_wrong"}, "a token with the right to org/model/config.json; got 401 Unauthorized"),
        ("org/gated", {}, "access to org/gated/config.json; got a gated model; try accepting its terms"),
        ("org/gated", {"token": "hf_reader"}, "got a gated model; try accepting its terms"),
        ("org/empty", {}, "org/empty/config.json on the Hub; got no such file; try a model that ddps saved"),
        ("org/na--me", {}, "a Hub id 'org/name'"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(server, worker, tiny_model_dir, source, options, said):
    server.add("org/gated", contents(tiny_model_dir), gated=True)
    server.add("org/empty")
    assert said in worker.refused(source, **options)
    assert cached_files(worker.cache) == []


# Connections that break


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_that_is_cut_off_is_made_good_by_the_next_call(server, worker, tiny_model_dir, reset):
    server.faults.append(Fault(WEIGHTS, cut=100, reset=reset))
    message = worker.refused()
    assert f"expected an answer from {server.endpoint} for org/model/model.safetensors" in message
    assert "try again; a part is never taken for the whole" in message
    assert not list(worker.cache.glob("**/snapshots/*/model.safetensors"))
    server.faults.clear()
    assert worker.load()["digest"] == digest(tiny_model_dir)
    assert not list(worker.cache.glob("**/*.incomplete"))


def test_a_download_that_is_cut_off_once_is_resumed_where_it_stopped(server, worker, tiny_model_dir):
    server.faults.append(Fault(WEIGHTS, cut=5000, times=1))
    # The client resumes by itself; before its version 1.0 it did so at the next call.
    with suppress(AssertionError):
        worker.load()
    assert worker.load()["digest"] == digest(tiny_model_dir)
    ranges = [asked.headers.get("Range") for asked in server.asked if "/storage/" in asked.path]
    assert [given for given in ranges if given] == ["bytes=4096-"] and ranges[0] is None


def test_a_process_killed_while_it_downloads_leaves_a_cache_that_works(server, worker, tiny_model_dir, tmp_path):
    server.faults.append(fault := Fault(WEIGHTS, cut=5000, times=1, hang=True))
    victim = Worker(environment(server.endpoint, tmp_path / "home"))
    try:
        victim.tell("load", source="org/model", cache_dir=worker.cache)
        assert fault.hanging.wait(60)
    finally:
        victim.close()
    assert "got no such file there" in worker.refused(local_files_only=True)
    assert worker.load()["digest"] == digest(tiny_model_dir)


def test_content_of_the_right_length_is_still_held_against_its_hash(server, worker, tiny_model_dir):
    wrong = bytearray((tiny_model_dir / "model.safetensors").read_bytes())
    wrong[-1] ^= 1
    server.faults.append(fault := Fault(WEIGHTS, status=200, body=bytes(wrong)))
    assert "as the Hub has it; got other content" in worker.refused()
    fault.times = 0
    assert worker.load()["digest"] == digest(tiny_model_dir)


def test_a_file_damaged_in_the_cache_is_fetched_again(server, worker, tiny_model_dir):
    worker.load()
    (blob,) = (path.resolve() for path in worker.cache.glob("**/snapshots/*/model.safetensors"))
    whole = blob.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:5000], b""):
        blob.write_bytes(damaged)
        message = worker.refused(local_files_only=True)
        assert "model.safetensors as the Hub has it; got other content; try deleting it" in message
        assert worker.load()["digest"] == digest(tiny_model_dir)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("resolve", status=500, body=b"oops"), "got 500 Internal Server Error; try again later"),
        (Fault("resolve", status=503), "got 503 Service Unavailable; try again later"),
        (Fault("resolve", status=429), "got 429 Too Many Requests; try again later"),
        (Fault("resolve", status=403), "a token with the right to org/model/config.json; got 403 Forbidden"),
        (Fault("resolve", status=200, body=b"<html>"), "got one that is not a Hub's; try checking HF_ENDPOINT"),
        (Fault("resolve", status=404, body=b"<html>"), "got 404 Not Found"),
        (Fault("GET .*resolve", status=200, body=b"<html>"), "org/model/config.json"),
        (Fault(WEIGHTS, status=200, body=b"x" * 99), "Consistency check failed"),
        (Fault(WEIGHTS, status=403, body=b"expired"), "got 403 Forbidden"),
    ],
)
def test_a_broken_server_is_told_from_a_missing_file(server, worker, fault, said, tiny_model_dir):
    server.faults.append(fault)
    message = worker.refused()
    assert said in message and "local_files_only" not in message
    server.faults.clear()
    assert worker.load()["digest"] == digest(tiny_model_dir)


def test_a_broken_server_does_not_matter_to_what_is_cached(server, worker, tiny_model_dir):
    worker.load()
    server.faults.append(Fault(".", status=503))
    assert worker.load()["digest"] == digest(tiny_model_dir)


# Without a connection


def test_what_is_cached_needs_no_connection(server, worker):
    loaded = worker.load()
    server.asked.clear()
    assert worker.load(local_files_only=True) == loaded
    assert worker.load(local_files_only=True, revision=loaded["commit"]) == loaded
    assert server.asked == []


def test_what_is_not_cached_is_said_without_asking(server, worker):
    message = worker.refused(local_files_only=True)
    assert "org/model/config.json in the cache; got no such file there, and local_files_only is set" in message
    assert server.asked == []


def test_half_an_update_leaves_the_old_version_within_reach(server, worker, tiny_model_dir, tmp_path):
    old = worker.load()
    server.add("org/model", {**contents(another(tiny_model_dir, tmp_path)), "config.json": b"{}"})
    server.add("org/model", contents(tmp_path / "another"))
    server.faults.append(Fault(WEIGHTS, cut=10))
    assert f"or revision={old['commit']!r}, which is in the cache" in worker.refused()
    assert f"or revision={old['commit']!r}, which is in the cache" in worker.refused(local_files_only=True)
    assert worker.load(local_files_only=True, revision=old["commit"]) == old


def test_offline_by_the_environment(server, worker, tiny_model_dir, tmp_path):
    loaded = worker.load()
    server.asked.clear()
    offline = Worker(environment(server.endpoint, tmp_path / "home", HF_HUB_OFFLINE="1"))
    try:
        assert offline("load", source="org/model", cache_dir=worker.cache) == loaded
        message = offline.refused("load", source="org/other", cache_dir=worker.cache)
        assert "got no such file there, and HF_HUB_OFFLINE is set; try once with a connection" in message
        message = offline.refused("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner")
        assert "a connection for org/new; got HF_HUB_OFFLINE in the environment; try without it" in message
    finally:
        offline.close()
    assert server.asked == []


# Pushing


def test_a_push_is_one_commit_that_loads_again(server, shared_worker, worker, tiny_model_dir):
    assert shared_worker("whoami", token="hf_owner") == "org"
    card = {"license": "apache-2.0", "datasets": ["camvid"], "report": REPORT}
    address = shared_worker("push", folder=tiny_model_dir, repo_id="org/new", card=card, token="hf_owner")
    assert address == f"{server.endpoint}/org/new"
    repo = server.repos["org/new"]
    assert sorted(repo.commits[repo.refs["main"]]) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert repo.messages[repo.refs["main"]] == "Upload a ddps refiner" and len(repo.commits) == 2
    loaded = worker.load("org/new")
    assert (loaded["commit"], loaded["digest"]) == (repo.refs["main"], digest(tiny_model_dir))
    info = shared_worker("model_info", repo_id="org/new")
    assert info == {"sha": loaded["commit"], "private": False, "tag": "image-segmentation", "library": "ddps"}
    written = ModelCard(repo.commits[loaded["commit"]]["README.md"].data.decode())
    assert 'DDPSRefiner.from_pretrained("org/new")' in written.text
    assert (written.data.license, written.data.datasets) == ("apache-2.0", ["camvid"])
    assert [result.metric_value for result in written.data.eval_results] == [62.5, 44.0, 91.0]


def test_a_private_push_to_a_branch(server, shared_worker, worker, tiny_model_dir):
    shared_worker("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner", private=True, revision="try/2")
    repo = server.repos["org/new"]
    assert repo.private and "model.safetensors" not in repo.commits[repo.refs["main"]]
    assert "no such model, or a private one" in worker.refused("org/new", revision="try/2")
    assert worker.load("org/new", revision="try/2", token="hf_owner")["commit"] == repo.refs["try/2"]


def test_a_second_push_changes_only_what_changed(server, shared_worker, tiny_model_dir, tmp_path):
    for folder in (tiny_model_dir, tiny_model_dir, another(tiny_model_dir, tmp_path)):
        shared_worker("push", folder=folder, repo_id="org/new", token="hf_owner")
    assert len(server.paths("POST", "/commit/main")) == 2
    assert len(server.paths("POST", "/api/repos/create")) == 3


def test_half_weights_are_half_the_upload(server, shared_worker, worker, tiny_model_dir):
    shared_worker("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner", half=True)
    tree = server.repos["org/new"].commits[server.repos["org/new"].refs["main"]]
    assert len(tree["model.safetensors"].data) < 0.7 * (tiny_model_dir / "model.safetensors").stat().st_size
    assert worker.load("org/new")["name"] == "tiny"


@pytest.mark.parametrize(
    ("repo_id", "token", "said"),
    [
        ("org/new", False, "a token with the right to org/new; got 401 Unauthorized (Invalid username or password.)"),
        ("org/new", "hf_wrong", "got 401 Unauthorized (Invalid credentials in Authorization header)"),
        ("other/new", "hf_owner", "got 403 Forbidden (You don't have the rights to create a model"),
        (
            "org/model",
            "hf_reader",
            "right to org/model; got 403 Forbidden (you must have write access)",
        ),
    ],
)
def test_a_push_without_the_right_to(server, shared_worker, tiny_model_dir, repo_id, token, said):
    before = dict(server.repos["org/model"].refs)
    message = shared_worker.refused("push", folder=tiny_model_dir, repo_id=repo_id, token=token)
    assert said in message and "hf auth login" in message
    assert server.repos["org/model"].refs == before and set(server.repos) == {"org/model"}


@pytest.mark.parametrize(
    ("step", "status", "body"),
    [
        ("repos/create", 500, b"oops"),
        ("repos/create", 200, b"<html>"),
        ("repos/create", 200, b"{}"),
        ("validate-yaml", 200, b"<html>"),
        ("preupload", 500, b"oops"),
        ("preupload", 200, b"[]"),
        ("objects/batch", 200, b"{}"),
        ("PUT /storage", 500, b"oops"),
        ("/commit/", 503, b""),
        ("/commit/", 200, b"[]"),
    ],
)
def test_a_push_that_breaks_off_leaves_nothing_half(server, shared_worker, worker, tiny_model_dir, step, status, body):
    server.large.clear()
    server.faults.append(Fault(step, status=status, body=body))
    message = shared_worker.refused("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner")
    assert f"an answer from {server.endpoint} for org/new" in message
    if "org/new" in server.repos:
        assert "no such file" in worker.refused("org/new")
    server.faults.clear()
    shared_worker("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner")
    assert worker.load("org/new")["digest"] == digest(tiny_model_dir)


def test_a_card_that_the_hub_refuses_is_said(server, shared_worker, tiny_model_dir):
    errors = json.dumps({"errors": [{"message": "license must be one of ..."}], "warnings": []}).encode()
    server.faults.append(Fault("validate-yaml", status=400, body=errors))
    message = shared_worker.refused("push", folder=tiny_model_dir, repo_id="org/new", token="hf_owner")
    assert "license must be one of" in message


# The command line, with the token and the cache of the environment


def test_the_command_line_loads_from_the_hub(server, tiny_model_dir, tmp_path):
    server.add("org/private", contents(tiny_model_dir), private=True)
    command = [sys.executable, "-m", "ddps.cli.main", "info", "org/private", "--json"]
    env = environment(server.endpoint, tmp_path / "home", HF_TOKEN="hf_owner")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    model = json.loads(done.stdout)["model"]
    assert model["config"]["name"] == "tiny"
    assert Path(model["folder"]).is_relative_to(tmp_path / "home" / "hub")


def test_these_tests_left_this_process_alone():
    from huggingface_hub import constants

    assert "127.0.0.1" not in constants.ENDPOINT or "127.0.0.1" in os.environ.get("HF_ENDPOINT", "")
    assert torch.get_num_threads() == 1
