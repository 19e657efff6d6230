"""Entry point of the command `ddps`: the parser, and how every failure ends in one line and an exit code."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import NoReturn

from ..errors import InputError, one_line, printable
from ..memory import keep_memory
from .report import say_error, show_warning

# Each is a module of this folder, with its line in `ddps --help`.
COMMANDS = {
    "refine": "refine one prediction, or a folder of them",
    "evaluate": "measure predictions before and after refinement, or a full model, against true masks",
    "benchmark": "compare quality with other refiners, or measure speed and calibration",
    "train": "train a refiner on your own images and masks",
    "convert": "turn a released checkpoint into a model folder",
    "export": "write one denoising step for ONNX Runtime or torch.export",
    "prior": "show what a model believes about masks without an image",
    "demo": "refine rough masks of real photos, offline",
    "app": "serve a web page to refine masks on",
    "info": "show versions, devices and a model's facts",
}
BAD_INPUT, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{printable(f'ddps: error: {message}; try {self.prog} --help')}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments; None for those of the process.

    Returns:
        Exit code: 0; 1 when some items of a folder failed; 2 for bad input.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = make_parser(next((word for word in argv if word in COMMANDS), None)).parse_args(argv)
        if args.keeps_memory:
            keep_memory()
        with warnings.catch_warnings():
            warnings.showwarning = partial(show_warning, warnings.showwarning)
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; the interpreter must not try to flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        say_error(error)
        return BAD_INPUT
    except OSError as error:
        say_error(InputError("files that can be read and written", one_line(error), "checking paths and permissions"))
        return BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        from ..out_of_memory import is_out_of_memory  # torch is there, or there was memory for less than that

        if not is_out_of_memory(error):
            raise
        say_error(InputError("memory for this command", one_line(error), "smaller images, a smaller --tile or batch"))
        return BAD_INPUT
    except KeyboardInterrupt:
        print("ddps: interrupted", file=sys.stderr)
        return INTERRUPTED


def make_parser(command: str | None) -> Parser:
    """The parser with the options of one command. The others' modules are not imported: they would bring torch, which
    takes seconds, before a line of help is shown or a typing mistake is told.

    Args:
        command: one of `COMMANDS`; None for none of them.
    """
    parser = Parser(prog="ddps", description="Makes the masks of any semantic segmentor better.")
    parser.set_defaults(keeps_memory=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == command:
            import_module(f".{name}", __package__).add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


if __name__ == "__main__":
    sys.exit(main())
