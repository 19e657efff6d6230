"""Two processes train one refiner, and go on after a stop as if there had been none."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddps.training.processes import average_value

from ..torchrun import torchrun

# Says what every process has after every save, and keeps the first state, as a run that ended there would leave it.
SCRIPT = """
import shutil, sys
from ddps.cli.main import main
from ddps.training import loop

save = loop._Run.save

def save_and_tell(self):
    save(self)
    weights = [float(v.double().sum()) for v in self.network.state_dict().values()]
    sys.stdout.write(repr([self.step, self.loss, weights]) + "\\n")
    sys.stdout.flush()
    if self.rank == 0 and self.step == 2:
        shutil.copy(self.folder / "state.safetensors", self.folder / "earlier.safetensors")

loop._Run.save = save_and_tell
sys.exit(main())
"""


def state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "state.safetensors")


@pytest.mark.processes
def test_two_processes_train_one_refiner(make_set, tmp_path, tiny_model):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.json").write_text(tiny_model.to_json())
    arguments = ["train", "--data", make_set(train=3), "--model-config", tmp_path / "config.json", "--device", "cpu"]
    arguments += ["--steps", 4, "--batch-size", 2, "--crop", 32, "--warmup", 1, "--amp", "off", "--save-every", 2]
    arguments += ["--validate-every", 100, "--name", "tiny"]

    run = tmp_path / "run"
    whole = torchrun(*arguments, "-o", run, script=tmp_path / "script.py")
    assert whole.returncode == 0, whole.stderr
    lines = whole.stdout.splitlines()
    told = sorted(json.loads(line) for line in lines if line.startswith("["))
    # loss, weights and batch statistics are the same in both, after every save
    assert len(told) == 4 and told[0] == told[1] and told[2] == told[3] and told[1] != told[2]
    assert [line for line in lines if not line.startswith("[")] == [str(run / "best")]

    uninterrupted = state(run)
    shutil.rmtree(run / "best")
    (run / "earlier.safetensors").replace(run / "state.safetensors")
    resumed = torchrun(*arguments, "-o", run, script=tmp_path / "script.py")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count("resumed at step 2") == 1 and (run / "best").is_dir()
    again = state(run)
    assert again.keys() == uninterrupted.keys()
    assert all(torch.equal(again[name], uninterrupted[name]) for name in again)


def test_the_mean_of_one_process_is_its_value():
    assert average_value(torch.tensor(2.5, requires_grad=True), 1) == 2.5
