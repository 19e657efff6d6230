"""What a run begins with: its data, the label space that follows from them, and a network."""

from dataclasses import replace
from pathlib import Path

import torch

from ..config import DDPSConfig, LabelSpace, LogitsNetwork
from ..errors import InputError
from ..hub import load_weights
from ..models.slot_unet import SlotUNet
from .config import TrainConfig
from .sets import DataSet, hold_out, read_data_set

MOST_NAMED, MOST_SLOTS = 256, 16
"""Most classes that a network learns by name, and most slots that it then has."""
BY_NAME = ("classes.", "identity.", "inform.", "lean.")
"""Weights of what a network knows about classes by name."""


def read_sets(config: TrainConfig, predictions: Path | None = None) -> tuple[list[DataSet], list[DataSet]]:
    """The sets to train on, and those to validate on.

    A set without a `val` split is validated on a share of its training images, which are not trained on.

    Args:
        config: of the run.
        predictions: their folder, in place of the config's.
    """
    root = predictions or (Path(config.predictions) if config.predictions else None)
    several = len(config.data) > 1
    sets, held_out = [], []
    for folder in map(Path, config.data):
        data = read_data_set(folder, "train", root, several)
        if (folder / "val" / "images").is_dir():
            held_out.append(read_data_set(folder, "val", root, several))
        else:
            data, rest = hold_out(data, config.hold_out)
            held_out += [rest] if rest.pairs else []
        sets.append(data)
    return sets, held_out


def with_labels(config: TrainConfig, sets: list[DataSet]) -> TrainConfig:
    """A refiner for one data set answers in its label space and learns its classes by name; one for several does not.

    Raises:
        InputError: the config's network knows other classes by name than the data have.
    """
    network = config.model.network
    named = network.classes if isinstance(network, LogitsNetwork) else 0
    for data in sets:
        if named and data.num_classes != named:
            raise InputError(f"data of {named} classes", f"{data.num_classes} in {data.name}", "network.classes 0")
    merged = any(source.merge is not None for source in sets[0].sources)
    if len(sets) > 1 or merged or config.model.labels.num_classes is not None:
        return config
    data = sets[0]
    names = data.names if len(data.names) == data.num_classes else ()
    labels = LabelSpace(data.num_classes, names, ignore_index=data.ignore_index)
    if isinstance(network, LogitsNetwork) and data.num_classes <= MOST_NAMED:
        if config.batch_size == 1 and config.crop < 4 * network.stride:
            expected = f"crop of at least {4 * network.stride} with batch_size 1"
            raise InputError(expected, str(config.crop), "more crops per step, or larger ones")
        slots = max(network.max_slots, min(data.num_classes, MOST_SLOTS))
        network = replace(network, classes=data.num_classes, max_slots=slots)
    return replace(config, model=replace(config.model, labels=labels, network=network))


def model_of(init: str) -> DDPSConfig:
    """The config of the weights that a run starts from, for any classes.

    Raises:
        InputError: no such weights, or those of another kind of model.
    """
    found, _, _ = load_weights(init, _build)
    return replace(found, labels=LabelSpace(), network=replace(_logits(found), classes=0))


def new_network(config: TrainConfig) -> tuple[SlotUNet, set[str]]:
    """The network to train, and the names of the weights that come from `init`.

    Raises:
        InputError: another kind of network, or weights that do not fit it.
    """
    torch.manual_seed(config.seed)
    wanted = _logits(config.model)
    network = SlotUNet(wanted)
    if not config.init:
        return network, set()
    found_config, weights, _ = load_weights(config.init, _build)
    found = _logits(found_config)
    if replace(found, classes=0, max_slots=8) != replace(wanted, classes=0, max_slots=8):
        raise InputError(f"the network of {config.init}", "other widths", "leaving the network's settings out")
    # what knows other classes by name starts anew
    same = found.classes == wanted.classes
    state = network.state_dict()
    weights = {k: v for k, v in weights.items() if k in state and (same or not k.startswith(BY_NAME))}
    network.load_state_dict({**state, **weights})
    return network, set(weights)


def _build(config: DDPSConfig) -> SlotUNet:
    return SlotUNet(_logits(config))


def _logits(config: DDPSConfig) -> LogitsNetwork:
    if isinstance(config.network, LogitsNetwork):
        return config.network
    raise InputError(
        "a network conditioned on logits", config.network.conditioning, "network.conditioning=logits, or --recipe"
    )
