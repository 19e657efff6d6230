"""Options that several commands share, and how they reach the refiner."""

import argparse
import math
from collections.abc import Callable
from typing import get_args

from ..config import FeaturesNetwork
from ..errors import InputError
from ..inputs import ImageLike
from ..outputs import Refinement
from ..predictions import AnyKind, PredictionLike
from ..refiner import DDPSRefiner
from ..settings import Preset
from ..video import VideoRefiner

SAMPLERS = ("free", "posterior", "single")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What chooses the weights and where they run."""
    parser.add_argument(
        "--model", default="universal", metavar="M", help="embedded weights, a folder or a Hub id (default: universal)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")


def add_refine_options(
    parser: argparse.ArgumentParser, steps: Callable[[str], object] | None = None, steps_help: str = "denoising steps"
) -> None:
    """What `DDPSRefiner.refine` takes; what is not given stays the model's default.

    Args:
        parser: that gets the options.
        steps: what reads --steps, for a command that takes several numbers.
        steps_help: of --steps.
    """
    add_model_options(parser)
    parser.add_argument(
        "--preset", choices=get_args(Preset), default="default", help="fast: one pass; best: larger, slower"
    )
    parser.add_argument("--steps", type=steps or whole(1, 4096), metavar="N", help=steps_help)
    parser.add_argument(
        "--early-exit",
        type=share,
        default=0.0,
        metavar="S",
        help="end a chain when no more than this share of pixels changes in a step (default: 0, never)",
    )
    parser.add_argument("--sampler", choices=SAMPLERS, help="how steps follow one another")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    parser.add_argument(
        "--num-samples", type=whole(1, 4096), default=1, metavar="N", help="chains to average per image (default: 1)"
    )
    parser.add_argument(
        "--guidance-scale", type=float, default=0.0, metavar="G", help="of classifier-free guidance (default: 0, none)"
    )
    parser.add_argument("--tile", type=whole(64, 8192), metavar="PX", help="side of a tile, for large images")
    parser.add_argument(
        "--kind", choices=get_args(AnyKind), default="auto", help="what predictions are, where their file does not say"
    )


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return value

    return parse


def percentage(text: str) -> float:
    """An argparse type: a number from 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage from 0 to 100, got {text!r}")
    return value


def share(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to below 1, got {text!r}")
    return value


def load_refiner(args: argparse.Namespace, full_models: bool = False) -> DDPSRefiner:
    """The refiner of `add_model_options`; what no image could be refined with ends here, before the first one.

    Args:
        args: of the command.
        full_models: whether it may be a full model, which needs no prediction.

    Raises:
        InputError: no such weights or device, more steps than the weights know, or weights that need features.
    """
    refiner = DDPSRefiner.from_pretrained(args.model, device=args.device)
    full = full_models and refiner.config.backbone is not None
    if isinstance(refiner.config.network, FeaturesNetwork) and not full:
        raise InputError(
            "weights that refine predictions", f"{args.model}, which needs a segmentor's features", "others"
        )
    steps, most = getattr(args, "steps", None), refiner.schedule.num_steps
    steps = max(steps) if isinstance(steps, tuple) else steps
    if steps is not None and steps > most:
        raise InputError(f"--steps from 1 to {most}, as {args.model} was trained", str(steps), "fewer")
    return refiner


def refine_one(
    refiner: DDPSRefiner | VideoRefiner,
    args: argparse.Namespace,
    image: ImageLike,
    prediction: PredictionLike | None,
    kind: AnyKind,
    *,
    ignore_index: int,
    num_classes: int | None = None,
    return_probs: bool = False,
    progress: bool = False,
) -> Refinement:
    """`DDPSRefiner.refine` of one image with the options of `add_refine_options`."""
    refined = refiner.refine(
        image,
        prediction,
        kind=kind,
        preset=args.preset,
        steps=args.steps,
        sampler=args.sampler,
        seed=args.seed,
        num_samples=args.num_samples,
        guidance_scale=args.guidance_scale,
        early_exit=args.early_exit,
        tile=args.tile,
        ignore_index=ignore_index,
        num_classes=num_classes,
        return_probs=return_probs,
        progress=progress,
    )
    assert isinstance(refined, Refinement)  # one image, one answer
    return refined
