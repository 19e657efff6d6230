"""Nothing that comes with a model runs: held against the interpreter's own record, and against the source."""

import ast
import functools
import json
import sys
from pathlib import Path

import pytest
import torch

import ddps
from ddps import DDPSRefiner, InputError

SOURCES = sorted(Path(ddps.__file__).parent.rglob("*.py"))
RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "compile", "import", "exec")
"""Events of sys.addaudithook that foreign code could not do without."""


@pytest.fixture(scope="module")
def recorded():
    """A list that grows by the events while it is in `on`."""
    events, on = [], []

    def hook(event, arguments):
        if on and event in RUNS:
            events.append((event, *map(str, arguments[:1])))

    sys.addaudithook(hook)  # cannot be taken away; it only looks
    return events, on


@pytest.fixture
def repository(tmp_path, tiny_refiner):
    """A model folder with everything that other libraries would run."""
    folder, trace = tiny_refiner.save_pretrained(tmp_path / "model"), tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()\n"
    for name in (
        "__init__.py",
        "modeling_ddps.py",
        "configuration_ddps.py",
        "conftest.py",
        "setup.py",
        "safetensors.py",
    ):
        (folder / name).write_text(code)

    class Bomb:
        def __reduce__(self):
            return exec, (code,)

    for name in ("pytorch_model.bin", "model.pth", "training_args.bin"):
        torch.save({"state_dict": Bomb()}, folder / name)
    return folder, trace


def test_loading_runs_nothing(repository, recorded, monkeypatch):
    (folder, trace), (events, on) = repository, recorded
    monkeypatch.chdir(folder)
    DDPSRefiner.from_pretrained(folder, device="cpu")  # what ddps itself still has to import
    on.append(1)
    DDPSRefiner.from_pretrained(folder, device="cpu")
    on.clear()
    assert events == [] and not trace.exists()
    on.append(1)
    torch.load(folder / "model.pth", weights_only=False)  # the record does see what runs
    on.clear()
    assert {event for event, *_ in events} >= {"pickle.find_class", "exec"} and trace.exists()


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines", "_target_", "trust_remote_code", "architectures"])
def test_a_config_that_names_code_is_refused(repository, key):
    folder, trace = repository
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, key: "modeling_ddps.Model"}))
    with pytest.raises(InputError, match=f"unknown '{key}'"):
        DDPSRefiner.from_pretrained(folder, device="cpu")
    assert not trace.exists()


def test_without_its_safetensors_the_pickles_are_not_taken(repository):
    folder, trace = repository
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="never unpickled"):
        DDPSRefiner.from_pretrained(folder, device="cpu")
    assert not trace.exists()


@functools.cache
def calls():
    """(file, name as written, keywords) of every call in the package."""
    nodes = [(path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    return [
        (path, ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
        for path, node in nodes
        if isinstance(node, ast.Call)
    ]


def test_only_convert_opens_pickles_and_only_safely():
    loads = [
        (path.relative_to(SOURCES[0].parent), keywords) for path, name, keywords in calls() if name == "torch.load"
    ]
    assert [path for path, _ in loads] == [Path("convert/pickles.py")]
    assert [keywords["weights_only"] for _, keywords in loads] == ["True"]
    assert [
        name for _, name, _ in calls() if name.split(".")[0] in ("pickle", "dill", "joblib", "marshal", "shelve")
    ] == []
    assert [keywords for _, name, keywords in calls() if keywords.get("allow_pickle") == "True"] == []


def test_nothing_in_the_package_runs_text():
    foreign = ("eval", "exec", "compile", "os.system", "__import__")
    assert [(path.name, name) for path, name, _ in calls() if name in foreign] == []
    assert [name for _, name, keywords in calls() if keywords.get("trust_remote_code", "False") != "False"] == []
