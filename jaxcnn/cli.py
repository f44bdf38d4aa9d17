"""The command `jaxcnn`. Each subcommand is a file in `jaxcnn.commands`."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import jaxcnn.commands
from jaxcnn import heap, program_cache

USER_MISTAKES = (ValueError, FileNotFoundError, PermissionError)


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
    for found in pkgutil.iter_modules(jaxcnn.commands.__path__):
        command = importlib.import_module(f"jaxcnn.commands.{found.name}")
        known = set(subparsers.choices)
        command.register(subparsers)
        for name in set(subparsers.choices) - known:
            added = subparsers.choices[name]
            _add_debug(added, argparse.SUPPRESS)
            added.set_defaults(run=command.run)
    return parser


def _add_debug(parser: argparse.ArgumentParser, default: bool | str) -> None:
    text = "show the traceback of a mistake (or set JAXCNN_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", default=default, help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 2 where the user made a mistake."""
    args = make_parser().parse_args(argv)
    heap.keep_before_jax()
    if not getattr(args, "compiles_anew", False):
        program_cache.use()
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except USER_MISTAKES as error:
        if args.debug or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0"):
            raise
        print(f"jaxcnn: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("jaxcnn: interrupted", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
