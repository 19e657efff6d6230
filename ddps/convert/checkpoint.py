"""A released checkpoint → config, weights and card in one folder, every tensor checked before anything is written."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import DDPSConfig
from ..errors import InputError
from ..hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, expected_tensors, model_card, save_weights
from ..refiner import build_network
from ..tensor_file import refuse_non_finite
from .pickles import read_checkpoint
from .recognise import HEAD, Void, check_names, listed, recognise

EMA = "ema_"
# What mmcv's hook may leave out of the averages: not trained, so there is nothing to average.
NOT_AVERAGED = ("running_mean", "running_var", "num_batches_tracked", "log_at", "log_bt")
Choice = Literal["auto", "ema", "raw"]


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        folder: with config.json, model.safetensors and README.md.
        config: as written.
        weights: which of the checkpoint's weights were taken.
        parameters: number of trained parameters.
    """

    folder: Path
    config: DDPSConfig
    weights: Literal["ema", "raw"]
    parameters: int


def convert_checkpoint(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    weights: Choice = "auto",
    void: Void = "auto",
    overwrite: bool = False,
) -> Conversion:
    """Converts a checkpoint that mmcv 1 wrote for DDPS with a SegFormer.

    Args:
        path: the `.pth` file.
        directory: folder to write, which is made if need be.
        weights: "ema" for the running averages, which the paper evaluates, "raw" for the others; "auto" takes the
            averages where the file has them.
        void: whether the network's class 0 is void: "first", "none", or "auto" to tell ADE20K's 151 and Cityscapes'
            20 classes from others.
        overwrite: whether a model that is in the folder may be replaced.

    Raises:
        InputError: the file is no such checkpoint (see `read_checkpoint`), a tensor is unknown, missing, of another
            shape or type or not finite, the averages are asked for and not there, or the folder holds a model.
    """
    source, folder = Path(path), Path(directory)
    _check_output(folder, overwrite)
    content = read_checkpoint(source)
    state, meta = content.get("state_dict", content), content.get("meta")
    tensors, taken = choose_weights(_tensors(state), weights)
    config = recognise(tensors, meta if isinstance(meta, dict) else {}, source.stem, void)
    ours = {name.removeprefix(HEAD): value for name, value in tensors.items()}
    expected = expected_tensors(build_network, config)
    _check_tensors(ours, expected)
    ready = {name: ours[name].to(like.dtype) for name, like in expected.items()}
    refuse_non_finite(ready, repr(source.name))
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_network(config).parameters())
    card = model_card(config, parameters=parameters, sections={"Origin": _origin(source, taken, meta)})
    save_weights(folder, config, ready, card)
    return Conversion(folder, config, taken, parameters)


def choose_weights(state: Mapping[str, Tensor], weights: Choice) -> tuple[dict[str, Tensor], Literal["ema", "raw"]]:
    """The averaged or the raw weights of a checkpoint, under the plain names.

    A training checkpoint holds the average of `a.b` as `ema_a_b`, in one dictionary with `a.b` itself.

    Raises:
        InputError: unknown names, averages that are asked for and not there, or only some of them.
    """
    averages = {name for name in state if name.startswith(EMA)}
    plain = [name for name in state if name not in averages]
    twins = {name: EMA + name.replace(".", "_") for name in plain}
    check_names([*plain, *sorted(averages - set(twins.values()))])
    if weights == "raw" or (weights == "auto" and not averages):
        return {name: state[name] for name in plain}, "raw"
    lacking = [name for name in plain if twins[name] not in averages and not name.endswith(NOT_AVERAGED)]
    if not averages:
        raise InputError("averaged weights (ema_*)", "a checkpoint without any", "--weights raw")
    if lacking:
        got = f"none for {listed(lacking, 3)}"
        raise InputError("an average (ema_*) for every weight", got, "a whole checkpoint, or --weights raw")
    return {name: state[twins[name] if twins[name] in averages else name] for name in plain}, "ema"


def _tensors(state: object) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not state:
        got = "nothing in it" if state == {} else type(state).__name__
        raise InputError("a state_dict of tensors", got, "a checkpoint of DDPS")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            got = f"{type(value).__name__} under {str(name)[:80]!r}"
            raise InputError("a state_dict of tensors by name", got, "a checkpoint of DDPS")
        # A view may claim more values than the file holds, which a copy would have to make up.
        real = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not real or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError("plain tensors", f"another kind under {name[:80]!r}", "a checkpoint of DDPS")
    return state


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    shapes, dtypes = [], []
    for name in sorted(tensors.keys() & expected.keys()):
        have, want = tensors[name], expected[name]
        if have.shape != want.shape:
            shapes.append(f"{name} {tuple(have.shape)} instead of {tuple(want.shape)}")
        elif have.dtype != want.dtype and not (have.is_floating_point() and want.is_floating_point()):
            dtypes.append(f"{name} {have.dtype} instead of {want.dtype}")
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - expected.keys()),
        "mis-shaped": shapes,
        "of another type": dtypes,
    }
    got = "; ".join(f"{kind} {listed(names, 8)}" for kind, names in problems.items() if names)
    if got:
        raise InputError(
            f"the {len(expected)} tensors of the network that this checkpoint describes", got, "a whole checkpoint"
        )


def _check_output(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder to write", f"the file {str(folder)!r}", "another name")
    there = [name for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE) if os.path.lexists(folder / name)]
    if there and not overwrite:
        raise InputError(f"a folder without {there[0]}", repr(str(folder)), "another folder, or --overwrite")


def _origin(source: Path, taken: str, meta: Any) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    iteration = meta.get("iter") if isinstance(meta, dict) else None
    trained = f", written after {iteration} iterations" if type(iteration) is int else ""
    kind = "its averaged weights (ema_*)" if taken == "ema" else "its plain weights"
    return (
        f"Converted by `ddps convert` from a checkpoint of mmcv{trained}: {kind}, "
        f"values unchanged. SHA-256 of that file: `{digest.hexdigest()}`."
    )
