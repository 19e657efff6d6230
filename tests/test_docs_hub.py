"""The lines of docs/hub.md, run one after another as they stand there."""

import json
import re
import subprocess
import sys

from huggingface_hub import ModelCard

from .hub_process import environment
from .hub_server import HubServer

REPORT = {"images": 39, "base": {"miou": 60.0, "mbiou": 40.0}, "refined": {"miou": 62.5, "mbiou": 44.0}}
# What the page says of tokens, beside its snippets.
STORED = """
from ddps.errors import InputError

DDPSRefiner.from_pretrained("org/private", cache_dir="another")
try:
    DDPSRefiner.from_pretrained("org/private", token=False, cache_dir="a third")
except InputError as error:
    print(error)
"""


def test_every_snippet_runs(tiny_model_dir, tmp_path, request):
    text = (request.config.rootpath / "docs" / "hub.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 6
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_owner")
    files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()}
    with HubServer() as server:
        server.tokens["hf_..."] = "org"
        commit = server.add("org/name", files)
        server.repos["org/name"].refs["v1.0"] = commit
        server.add("org/private", files, private=True)
        done = subprocess.run(
            [sys.executable, "-c", "\n".join([*snippets, "print(address)", STORED])],
            cwd=tmp_path,
            env=environment(server.endpoint, tmp_path / "home"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        address, refused = done.stdout.splitlines()
        assert address == f"{server.endpoint}/org/mine"
        assert "no such model, or a private one" in refused
        repo = server.repos["org/mine"]
        card = ModelCard(repo.commits[repo.refs["main"]]["README.md"].data.decode())
    assert repo.private and card.text.endswith("## Limits\n\nTrained on streets by day.\n")
    assert (card.data.license, card.data.datasets, card.data.metrics) == (
        "apache-2.0",
        ["camvid"],
        ["mean_iou", "mean_boundary_iou"],
    )
    assert [(r.metric_value, r.dataset_split, r.dataset_config) for r in card.data.eval_results] == [
        (62.5, "test", "cgnet"),
        (44.0, "test", "cgnet"),
    ]
