"""Entry point of the command `ddps`: the parser, and how every failure ends in one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import InputError
from . import benchmark, convert, demo, evaluate, info, prior, refine, train
from .report import say_error

COMMANDS = (refine, evaluate, benchmark, train, convert, prior, demo, info)
BAD_INPUT, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"ddps: error: {message}; try {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments; None for those of the process.

    Returns:
        Exit code: 0; 1 when some items of a folder failed; 2 for bad input.
    """
    args = make_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; the interpreter must not try to flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        say_error(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("ddps: interrupted", file=sys.stderr)
        return INTERRUPTED


def make_parser() -> Parser:
    parser = Parser(prog="ddps", description="Makes the masks of any semantic segmentor better.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
