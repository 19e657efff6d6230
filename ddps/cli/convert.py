"""`ddps convert`: a released checkpoint of the paper → a folder that every other command takes."""

import argparse
from pathlib import Path
from typing import Literal

from ..convert import convert_checkpoint
from ..segmentors.mit import size_name
from .report import to_json


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a released checkpoint into a model folder",
        description="Turns CHECKPOINT, a .pth file of DDPS with a SegFormer, into a folder for --model and for "
        "DDPSRefiner.from_pretrained. The file is opened as data: nothing in it runs.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .pth file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), help="averaged or plain weights (default: averaged where there are any)"
    )
    parser.add_argument(
        "--void",
        choices=("auto", "first", "none"),
        default="auto",
        help="whether the network's class 0 is void (default: it is for ADE20K's 151 and Cityscapes' 20 classes)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is in the folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    weights: Literal["auto", "ema", "raw"] = args.weights or "auto"
    made = convert_checkpoint(args.checkpoint, args.output, weights=weights, void=args.void, overwrite=args.overwrite)
    config = made.config
    backbone = None if config.backbone is None else size_name(config.backbone)
    if args.json:
        facts = {
            "folder": str(made.folder),
            "weights": made.weights,
            "parameters": made.parameters,
            "backbone": backbone,
            "num_classes": config.labels.num_classes,
            "void_first": config.labels.void_first,
        }
        print(to_json(facts))
        return 0
    void = ", void counted first by the network" if config.labels.void_first else ""
    print(
        f"{made.folder}: {backbone or 'head only'}, {made.parameters:,} parameters ({made.weights}), "
        f"{config.labels.num_classes} classes{void}"
    )
    return 0
