"""`ddps info`: what is installed, which devices there are, and what a model is."""

import argparse
import dataclasses
import platform
from dataclasses import dataclass

import torch

from .. import __version__
from ..config import DDPSConfig, FeaturesNetwork
from ..hub import CARD_FILE, WEIGHTS_FILE, embedded_names, load_weights
from ..refiner import build_network
from ..segmentors.mit import size_name
from .report import to_json

DEFAULT_MODEL = "universal"


@dataclass(frozen=True)
class ModelFacts:
    """What a folder of weights holds; `card` is the path of its model card, if it has one."""

    name: str
    folder: str
    card: str | None
    parameters: int
    bytes: int
    config: DDPSConfig


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "info",
        help="show versions, devices and a model's facts",
        description="Shows versions and devices, and of MODEL the configuration, the size and where its card lies.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="embedded weights, a folder or a Hub id")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    embedded = embedded_names()
    name = args.model or (DEFAULT_MODEL if DEFAULT_MODEL in embedded else None)
    model = None if name is None else describe(name)
    versions = {"ddps": __version__, "python": platform.python_version(), "torch": torch.__version__}
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if args.json:
        facts = None if model is None else dataclasses.asdict(model)
        print(to_json({**versions, "devices": devices, "embedded": embedded, "model": facts}))
        return 0
    names = [d if d == "cpu" else f"{d} ({torch.cuda.get_device_name(d)})" for d in devices]
    print(", ".join(f"{package} {number}" for package, number in versions.items()))
    print(f"devices: {', '.join(names)}")
    print(f"embedded models: {', '.join(embedded) or 'none'}")
    if model is not None:
        print(_text(model))
    return 0


def describe(name: str) -> ModelFacts:
    """Loads a model, with every check that a refiner would make, and says what it is."""
    config, _, folder = load_weights(name, build_network)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_network(config).parameters())
    card = folder / CARD_FILE
    size = (folder / WEIGHTS_FILE).stat().st_size
    return ModelFacts(name, str(folder), str(card) if card.is_file() else None, parameters, size, config)


def _text(model: ModelFacts) -> str:
    labels, network, schedule, inference = (
        model.config.labels,
        model.config.network,
        model.config.schedule,
        model.config.inference,
    )
    classes = "any number of classes" if labels.num_classes is None else f"{labels.num_classes} classes"
    backbone = model.config.backbone
    condition = "the segmentor's features" if isinstance(network, FeaturesNetwork) else "image and prediction"
    if backbone is not None:
        condition = "the image alone"
    encoder = [] if backbone is None else [f"  encoder:    {size_name(backbone)}, {dataclasses.asdict(backbone)}"]
    return "\n".join(
        [
            "",
            f"{model.name}: {classes}, conditioned on {condition}",
            f"  parameters: {model.parameters:,}, {model.bytes / 2**20:.1f} MiB on disk",
            f"  folder:     {model.folder}",
            f"  card:       {model.card or 'none'}",
            f"  noise:      {schedule.kind} schedule, {schedule.num_steps} steps, {schedule.kernel} kernel",
            f"  inference:  {inference.sampler}, {inference.steps} steps, tiles of {inference.tile} px",
            f"  network:    {dataclasses.asdict(network)}",
            *encoder,
        ]
    )
