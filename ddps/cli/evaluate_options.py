"""How `ddps evaluate` looks at images: the options of the protocol, and what they make."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import TypeVar, get_args

from ..errors import InputError
from ..protocol import MULTI_SCALE, PRESETS, EvaluationProtocol, Mode, Passes
from .options import whole

T = TypeVar("T")


def add_protocol_options(parser: argparse.ArgumentParser) -> None:
    """What turns one pass over an image into an evaluation protocol."""
    group = parser.add_argument_group("protocol", "rules of mmsegmentation, by which published figures are made")
    group.add_argument("--protocol", choices=tuple(PRESETS), help="a data set's resize rule, mode, crop and stride")
    group.add_argument("--mode", choices=get_args(Mode), help="whole images or sliding windows (default: whole)")
    group.add_argument("--crop", type=_size, metavar="HxW", help="of a window in pixels (default: 1024x1024)")
    group.add_argument("--stride", type=_size, metavar="HxW", help="from window to window (default: 768x768)")
    group.add_argument(
        "--resize", type=_size, metavar="LONGxSHORT", help="sides in pixels that images are made to fit, shape kept"
    )
    group.add_argument("--multiple", type=whole(1, 1024), metavar="PX", help="pad what a full model sees (default: 1)")
    group.add_argument(
        "--scales", type=_scales, metavar="A,B", help="factors whose answers are averaged; multi: 0.5,0.75,...,1.75"
    )
    group.add_argument("--flip", action="store_true", help="also in a mirror, and averaged")
    group.add_argument("--average-steps", action="store_true", help="also the mean over all steps of the chain")
    group.add_argument("--average-base", action="store_true", help="also every answer's mean with the predictions")


def read_steps(text: str) -> tuple[int, ...]:
    """An argparse type: numbers of steps, such as 20 or 1,10,20."""
    return _list(whole(1, 4096))(text)


def find_protocol(args: argparse.Namespace) -> EvaluationProtocol:
    """The protocol of the options; without any, whole images at their own size.

    Raises:
        InputError: values that do not fit together.
    """
    names = ("mode", "crop", "stride", "resize", "multiple", "scales")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.flip:
        given["flip"] = True
    start = EvaluationProtocol() if args.protocol is None else PRESETS[args.protocol]
    if given.get("mode", start.mode) == "whole" and ("crop" in given or "stride" in given):
        raise InputError("--crop and --stride with --mode slide", "whole images", "--mode slide")
    if "crop" in given and "stride" not in given:
        # Three quarters, as 768 of 1024.
        given["stride"] = tuple(max(1, side * 3 // 4) for side in given["crop"])
    return dataclasses.replace(start, **given)


def find_passes(args: argparse.Namespace) -> Passes:
    """The passes to report; one number of steps is a chain whose end alone counts.

    Raises:
        InputError: numbers that do not increase, an average over no chain, or several passes of a sampler of one.
    """
    several = args.steps is not None and (len(args.steps) > 1 or args.average_steps)
    if several and args.sampler == "single":
        raise InputError("--sampler free or posterior with several steps", "single", "--steps 1")
    return Passes(None if args.sampler == "single" else args.steps, args.average_steps)


def _list(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def parse(text: str) -> tuple[T, ...]:
        try:
            return tuple(read(part) for part in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected numbers with commas between them, got {text!r}") from None

    return parse


def _scales(text: str) -> tuple[float, ...]:
    return MULTI_SCALE if text == "multi" else _list(float)(text)


def _size(text: str) -> tuple[int, int]:
    """HxW, or one number for both."""
    try:
        sides = [int(part) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"expected pixels as HxW or one number, got {text!r}")
    return sides[0], sides[-1]
