"""`ddps train`: a refiner for one's own data set, or from several data sets for any."""

import argparse
import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import DDPSConfig
from ..hub import read_config
from ..processes import is_first
from ..training import TrainConfig, model_of, own_classes, train
from ..training.own_classes import SETTINGS as OWN_CLASSES
from .train_recipe import add_recipe_options, check_without_recipe, run_recipe

# Settings of TrainConfig that are options under their own name, with the default that TrainConfig gives them.
_SETTINGS = {
    "steps": "optimizer steps",
    "batch_size": "crops per step and process",
    "crop": "side of a crop in pixels, a multiple of 32",
    "lr": "highest learning rate",
    "weight_decay": "of AdamW",
    "warmup": "steps of linear warm-up",
    "clip": "largest norm of the gradient",
    "ema": "decay of the weights' running average",
    "real_share": "share of crops with a real prediction, where there is one",
    "repair_share": "share of real predictions with some mistakes mended, as of a better segmentor",
    "label_map_share": "share of synthetic mistakes that are rough label maps",
    "collage_share": "share of crops with regions of other images pasted in",
    "condition_dropout": "share of crops without an image, for guidance",
    "own_share": "share of steps that noise the network's own first prediction",
    "boundary_weight": "extra weight of pixels near a true outline",
    "iou_weight": "weight of the soft IoU loss",
    "amp": "bfloat16: auto, bf16 or off",
    "device": "auto, cpu, cuda, ...",
    "seed": "of weights, crops and noise",
    "workers": "processes that load data; 0 for none",
    "validate_every": "steps between validations",
    "validate_images": "images per data set and validation",
    "save_every": "steps between checkpoints",
    "init": "weights to start from: embedded weights, a folder or a Hub id",
    "init_rate": "learning rate of the weights from --init, as a share of --lr; only where others start anew",
    "class_balance": "power by which rare classes weigh more: 0 for equal weights, 1 for equal classes",
    "naming_weight": "weight of the loss of what the refiner says about your classes by name",
    "refined_share": "share of a batch's crops that are refined; the others teach the classes",
    "taught_share": "share of the training images that teach the classes; the others teach how far to trust that",
    "hold_out": "share of the training images to validate on, where there is no val folder",
    "segmentor": "module:callable that trains your segmentor, fit(images, masks) -> predict(image), whose predictions "
    "are then made out of fold",
    "predictor": "module:callable that is your trained segmentor, predict(image): for images it did not train on",
    "folds": "into how many the training images are split for --segmentor, which is trained as often",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train a refiner on your own images and masks",
        description="Trains a refiner. Given again with the same settings, the command goes on where it was stopped; "
        "the best weights lie in RUN/best, ready for --model. With --init universal and one --data it learns your own "
        "classes.",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="DIR",
        help="folder with classes.json, train/images, train/masks and optionally val, or classes.json, images and "
        "masks; repeat for several data sets",
    )
    parser.add_argument(
        "--data-weight",
        action="append",
        type=float,
        metavar="W",
        help="how often to draw from the data set of the same place (default: by the square root of its size)",
    )
    parser.add_argument(
        "--predictions", default="", metavar="DIR", help="a segmentor's predictions; without any, mistakes are made up"
    )
    parser.add_argument("-o", "--out", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--model-config", type=Path, metavar="FILE", help="config.json of the refiner to train (default: universal)"
    )
    parser.add_argument("--name", help="what the refiner is called in its config (default: the folder's name)")
    for field in dataclasses.fields(TrainConfig):
        if field.name in _SETTINGS:
            own = f"; {OWN_CLASSES[field.name]} with --init and one --data" if field.name in OWN_CLASSES else ""
            shown = f"{_SETTINGS[field.name]} (default: {field.default if field.default != '' else 'none'}{own})"
            option = "--" + field.name.replace("_", "-")
            parser.add_argument(option, type=type(field.default), metavar="V", help=shown)
    add_recipe_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    given: dict[str, Any] = {name: value for name in _SETTINGS if (value := getattr(args, name)) is not None}
    if args.recipe is not None:
        return run_recipe(args, given)
    check_without_recipe(args)
    if args.model_config is not None:
        model = read_config(args.model_config)
    elif args.init:
        model = replace(model_of(args.init), name="")
    else:
        model = DDPSConfig()
    given |= {
        "predictions": args.predictions,
        "data_weights": tuple(args.data_weight or ()),
        "model": replace(model, name=args.name or model.name or Path(args.out).name),
    }
    if args.init and len(args.data) == 1:
        config = own_classes(args.data[0], args.out, **given)
    else:
        config = TrainConfig(data=tuple(args.data), out=args.out, **given)
    folder = train(config)
    if is_first():
        print(folder)
    return 0
