"""The state of a training run as one safetensors file, written whole: nothing is ever unpickled."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..atomic import atomic_write
from ..errors import InputError
from ..tensor_file import stream_tensors


def save_state(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    facts: dict[str, float],
) -> None:
    """Writes weights, their running average, the optimizer's state and a few numbers.

    Everything random in training is a function of (seed, step), so the step is all that a resume needs to know.
    """
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    with atomic_write(path, overwrite=True) as file:
        stream_tensors(file, tensors, notes={"facts": json.dumps(facts)})


def read_facts(path: Path) -> dict[str, float]:
    """The numbers that `save_state` kept, without the tensors.

    Raises:
        InputError: a damaged file.
    """
    try:
        with safe_open(str(path), "pt") as file:
            facts: dict[str, float] = json.loads(file.metadata()["facts"])
            return facts
    except Exception as error:  # as in load_state
        raise _no_checkpoint(path, error) from None


def load_state(
    path: Path, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Restores what `save_state` wrote, in place, and returns the facts.

    Raises:
        InputError: a damaged file, or one of another network.
    """
    try:
        with safe_open(str(path), "pt") as file:
            facts: dict[str, float] = json.loads(file.metadata()["facts"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        network.load_state_dict(_part(tensors, "network."))
        kept = _part(tensors, "average.")
        for name, value in average.items():
            value.copy_(kept[name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except Exception as error:  # safetensors and load_state_dict raise several kinds
        raise _no_checkpoint(path, error) from None
    return facts


def _no_checkpoint(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(f"a checkpoint of this run in {path}", reason, "another --out folder, or deleting it")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
