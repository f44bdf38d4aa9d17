"""The command `jaxcnn`. Each subcommand is a file in `jaxcnn.cli`."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from jaxcnn._checks import message
from jaxcnn.cli.common import MISTAKE, USER_MISTAKES, debugging
from jaxcnn.runtime import compilation_cache, heap

_NO_COMMANDS = ("common", "flags", "main")


def make_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands. Imports neither JAX nor a network."""
    parser = argparse.ArgumentParser(
        prog="jaxcnn",
        description="The convolutional networks that made computer vision, in JAX and Flax.",
        epilog="`jaxcnn COMMAND --help` explains a command and gives an example. Compiled programs "
        "are kept between runs in the user's folder of caches; JAXCNN_CACHE=0 turns that off.",
    )
    _add_debug(parser, False)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _commands():
        command = importlib.import_module(f"jaxcnn.cli.{name}")
        known = set(subparsers.choices)
        command.register(subparsers)
        for new in set(subparsers.choices) - known:
            added = subparsers.choices[new]
            _add_debug(added, argparse.SUPPRESS)
            added.set_defaults(run=command.run)
    return parser


def _commands() -> list[str]:
    """The files of subcommands, by name."""
    found = [module.name for module in pkgutil.iter_modules([os.path.dirname(__file__)])]
    return [name for name in found if name not in _NO_COMMANDS and not name.startswith("_")]


def _add_debug(parser: argparse.ArgumentParser, default: bool | str) -> None:
    text = "show the traceback of a mistake (or set JAXCNN_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", default=default, help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 2 where the user made a mistake."""
    args = make_parser().parse_args(argv)
    heap.keep_before_jax()
    if not getattr(args, "compiles_anew", False):
        compilation_cache.use()
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except USER_MISTAKES as error:
        if debugging(args.debug):
            raise
        print(f"jaxcnn: error: {message(error)}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("jaxcnn: interrupted", file=sys.stderr)
        return 130
