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
from jaxcnn._checks import near
from jaxcnn.cli import common
from jaxcnn.runtime import compilation_cache, heap

_NO_COMMANDS = ("common", "flags", "main")


class _Parser(argparse.ArgumentParser):
    """A parser that suggests similar names for an unknown command."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            hint = near(str(value), action.choices) or f"; commands: {', '.join(action.choices)}"
            raise argparse.ArgumentError(None, f"unknown command {value!r}{hint}")
        super()._check_value(action, value)


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser with all subcommands. Imports neither JAX nor a network."""
    parser = _Parser(
        prog="jaxcnn",
        description="The convolutional networks that made computer vision, in JAX and Flax.",
        epilog="`jaxcnn COMMAND --help` explains a command and gives an example. Compiled programs "
        "are cached between runs in the user's cache directory; JAXCNN_CACHE=0 disables the cache.",
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
            added.set_defaults(run=command.run, actions=added._actions, error=added.error)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses arguments; positional ones may be before, between and after the options."""
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not _assign(args, rest):
        _refuse(parser, args, rest)
    if args.command is None:
        parser.print_help()
        raise SystemExit(0)
    for name, value in vars(args).items():
        setattr(args, name, _expanded(value))
    return args


def _refuse(parser: argparse.ArgumentParser, args: argparse.Namespace, rest: list[str]) -> None:
    """Ends the program with the usage of the command and a message about unknown arguments."""
    if args.command is None:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    shown = [action for action in args.actions if action.help != argparse.SUPPRESS]
    options = [option for action in shown for option in action.option_strings]
    for text in filter(_is_option, rest):
        unknown = text.partition("=")[0]
        args.error(f"unknown option {unknown!r}{near(unknown, options)}")
    args.error(f"unrecognized arguments: {' '.join(rest)}")


def _is_option(text: str) -> bool:
    return text.startswith("-") and text != "-"  # "-" is standard input


def _assign(args: argparse.Namespace, rest: list[str]) -> bool:
    """Assigns positional arguments that argparse left over because options preceded them.

    Returns False if one is an unknown option, or the command takes no more arguments.
    """
    if args.command is None or any(map(_is_option, rest)):
        return False
    positionals = [action for action in args.actions if not action.option_strings]
    given = [getattr(args, action.dest) for action in positionals]
    texts = [text for one in given for text in _as_list(one)] + rest
    for action in positionals:
        if action.nargs in ("*", "+"):
            setattr(args, action.dest, texts)
            return True
        if texts:
            setattr(args, action.dest, texts.pop(0))
    return not texts


def _check_not_empty(args: argparse.Namespace) -> None:
    """Raises ValueError for an empty argument, such as of an unset variable of a shell."""
    for action in args.actions:
        if "" in _as_list(getattr(args, action.dest, None)):
            name = action.option_strings[-1] if action.option_strings else action.metavar
            raise ValueError(f"{name} is empty; it must have a value, or be left out")


def _as_list(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _expanded(value: Any) -> Any:
    """Expands `~`, which shells do not expand after `=`."""
    if isinstance(value, list):
        return [_expanded(one) for one in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _commands() -> list[str]:
    """The names of the files of subcommands."""
    names = [module.name for module in pkgutil.iter_modules([os.path.dirname(__file__)])]
    return [name for name in names if name not in _NO_COMMANDS and not name.startswith("_")]


def _add_debug(parser: argparse.ArgumentParser, default: bool | str) -> None:
    text = "show the traceback of an error (or set JAXCNN_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", default=default, help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code, see `jaxcnn.runtime.exit_codes`."""
    common.print_any_name()
    args = _parse(argv)
    heap.keep_before_jax()
    if not getattr(args, "compiles_anew", False):
        compilation_cache.use()
    try:
        _check_not_empty(args)
        code = args.run(args) or 0
        if sys.stdout is not None:  # None if it is closed
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        text, code = common.describe(error, debug=args.debug)
        print(f"jaxcnn: {text}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("jaxcnn: interrupted", file=sys.stderr)
        return 130
