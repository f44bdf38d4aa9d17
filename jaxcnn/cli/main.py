"""The command `jaxcnn`. Each subcommand is a file in `jaxcnn.cli`."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

import jaxcnn
from jaxcnn._checks import message, near
from jaxcnn.cli import common
from jaxcnn.cli.common import MISTAKE, USER_MISTAKES, debugging
from jaxcnn.runtime import compilation_cache, heap

_NO_COMMANDS = ("common", "flags", "main")


class _Parser(argparse.ArgumentParser):
    """A parser that answers an unknown command with its neighbors."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            hint = near(str(value), action.choices) or f"; commands: {', '.join(action.choices)}"
            raise argparse.ArgumentError(None, f"unknown command {value!r}{hint}")
        super()._check_value(action, value)


def make_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands. Imports neither JAX nor a network."""
    parser = _Parser(
        prog="jaxcnn",
        description="The convolutional networks that made computer vision, in JAX and Flax.",
        epilog="`jaxcnn COMMAND --help` explains a command and gives an example. Compiled programs "
        "are cached between runs in the user's cache folder; JAXCNN_CACHE=0 turns that off.",
    )
    parser.add_argument("--version", action="version", version=f"jaxcnn {jaxcnn.__version__}")
    _add_debug(parser, False)
    subparsers = parser.add_subparsers(
        metavar="COMMAND", dest="command", parser_class=argparse.ArgumentParser
    )
    for name in _commands():
        command = importlib.import_module(f"jaxcnn.cli.{name}")
        known = set(subparsers.choices)
        command.register(subparsers)
        for new in set(subparsers.choices) - known:
            added = subparsers.choices[new]
            _add_debug(added, argparse.SUPPRESS)
            added.set_defaults(run=command.run)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; further ones of a command that takes any number may follow its options."""
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parser.print_help()
        raise SystemExit(0)
    further = getattr(args, "rest", None)
    if rest:
        if further is None or any(text.startswith("-") for text in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        setattr(args, further, [*getattr(args, further), *rest])
    for name, value in vars(args).items():
        setattr(args, name, _expanded(value))
    return args


def _expanded(value: Any) -> Any:
    """Texts that begin with `~`, which no shell expands behind `=`, as paths below the home."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _commands() -> list[str]:
    """The files of subcommands, by name."""
    found = [module.name for module in pkgutil.iter_modules([os.path.dirname(__file__)])]
    return [name for name in found if name not in _NO_COMMANDS and not name.startswith("_")]


def _add_debug(parser: argparse.ArgumentParser, default: bool | str) -> None:
    text = "show the traceback of a mistake (or set JAXCNN_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", default=default, help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 2 where the user made a mistake."""
    common.print_any_name()
    args = _parse(argv)
    heap.keep_before_jax()
    if not getattr(args, "compiles_anew", False):
        compilation_cache.use()
    try:
        code = args.run(args) or 0
        if sys.stdout is not None:  # closed
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
    except OSError as error:  # a full disk behind standard output, for example
        if debugging(args.debug):
            raise
        print(f"jaxcnn: error: {message(error)}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("jaxcnn: interrupted", file=sys.stderr)
        return 130
