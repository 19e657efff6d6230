"""`ddps train --recipe`: the paper's training, by a recipe."""

import argparse

from ..errors import InputError
from ..processes import is_first
from ..training.paper import PaperRun, load_recipe, recipe_names, train_recipe

# Options of `ddps train` that belong to the run and not to its recipe.
RUN_OPTIONS = ("device", "seed", "workers", "init")


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """What only recipes take."""
    group = parser.add_argument_group("the paper's own model, on the features of a frozen segmentor")
    group.add_argument(
        "--recipe", metavar="NAME", help=f"a JSON file, or one of {', '.join(recipe_names())}; takes one --data ROOT"
    )
    group.add_argument(
        "--backbone",
        metavar="DIR",
        help="the frozen segmentor: a whole model that ddps saved, or a SegFormer that transformers saved",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="change one setting of the recipe, as in optimizer.lr=1e-4; repeat for several",
    )


def check_without_recipe(args: argparse.Namespace) -> None:
    """Refuses what only recipes take."""
    for option, given in (("--backbone", args.backbone), ("--set", args.changes)):
        if given:
            raise InputError(f"--recipe together with {option}", "none", f"--recipe {recipe_names()[0]}")


def run_recipe(args: argparse.Namespace, given: dict[str, object]) -> int:
    """Trains, and prints the folder of the best weights.

    Args:
        args: of the command.
        given: settings of training without a recipe that were given, name → value.
    """
    strangers = [name for name in given if name not in RUN_OPTIONS]
    if args.data_weight:
        strangers.append("data_weight")
    if args.model_config is not None:
        strangers.append("model_config")
    if strangers:
        option = "--" + strangers[0].replace("_", "-")
        raise InputError("settings of the recipe as --set KEY=VALUE", option, "--set optimizer.batch_size=2, say")
    if len(args.data) != 1:
        raise InputError("one --data with a recipe", str(len(args.data)), "the root of one data set")
    changes = [*args.changes, *([f"model.name={args.name}"] if args.name else [])]
    run = PaperRun(
        recipe=load_recipe(args.recipe, changes),
        data=args.data[0],
        out=args.out,
        backbone=args.backbone or "",
        predictions=args.predictions,
        **{name: value for name, value in given.items() if name in RUN_OPTIONS},  # type: ignore[arg-type]
    )
    folder = train_recipe(run)
    if is_first():
        print(folder)
    return 0
