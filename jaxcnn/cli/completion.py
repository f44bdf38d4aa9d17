"""`jaxcnn completion SHELL`: completion of commands, options and names with the Tab key."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

# Each script sends the words up to the cursor, one per line, to `jaxcnn completion SHELL --words`,
# and completes files if that prints nothing. No space follows a field's name, which ends in "=".
_SCRIPTS = {
    "bash": r"""
_jaxcnn() {
  local IFS=$'\n'
  COMPREPLY=($(printf '%s\n' "${COMP_WORDS[@]:1:COMP_CWORD}" |
    jaxcnn completion bash --words 2>/dev/null))
  if [[ ${COMPREPLY-} == *= ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _jaxcnn jaxcnn""",
    "zsh": r"""#compdef jaxcnn
_jaxcnn() {
  local -a found
  found=(${(f)"$(printf '%s\n' "${(@)words[2,CURRENT]}" |
    jaxcnn completion zsh --words 2>/dev/null)"})
  if (( ! $#found )); then _files; return; fi
  compadd -S '' -- ${(M)found:#*=}
  compadd -- ${found:#*=}
}
compdef _jaxcnn jaxcnn""",
    "fish": r"""
function _jaxcnn
  printf '%s\n' (commandline -opc)[2..] (commandline -ct) |
    jaxcnn completion fish --words 2>/dev/null
end
complete -c jaxcnn -a '(_jaxcnn)'""",
}
_NETWORKS = ("given", "id", "measure", "model", "models", "pattern", "patterns")


def register(subparsers) -> None:
    """Adds `jaxcnn completion` to the commands."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script that makes the Tab key complete commands",
        description="Prints a script for the shell, which completes commands, options, networks, "
        "recipes, studies and fields of a configuration. For bash and zsh the line below goes into "
        "~/.bashrc or, after compinit, into ~/.zshrc; for fish: jaxcnn completion fish | source",
        epilog='example: jaxcnn completion bash, as in eval "$(jaxcnn completion bash)"',
    )
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help="bash, zsh or fish")
    parser.add_argument("--words", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Prints a completion script, or the completions of `--words`."""
    if not args.words:
        print(_SCRIPTS[args.shell].lstrip("\n"))
        return
    for word in complete(sys.stdin.read().split("\n")[:-1]):
        print(word)


def complete(words: Sequence[str]) -> list[str]:
    """Completes the last of the words that follow `jaxcnn` on a command line.

    Args:
      words: the last one is incomplete, "" if nothing is typed yet. "--sort=n" may be three words,
        as bash splits it.

    Returns:
      Completions of the last word; none if it may be a file.
    """
    from jaxcnn.cli.main import make_parser

    parser = make_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    *before, word = words or [""]
    before, word = [w for w in before if w != "="], word.lstrip("=")
    place = next((i for i, w in enumerate(before) if not w.startswith("-")), None)
    if place is None:
        candidates: Iterable[str] = (*commands, *_options(parser._actions))
    elif before[place] in commands:
        candidates = _arguments(commands[before[place]]._actions, before[place + 1 :], word)
    else:
        candidates = ()
    return [text for text in candidates if text.startswith(word)]


def _arguments(actions: Sequence[argparse.Action], before: Sequence[str], word: str) -> Iterable:
    """Completions of a word that follows some arguments of a command."""
    by_option = {option: action for action in actions for option in action.option_strings}
    with_value = {option for option, action in by_option.items() if action.nargs != 0}
    if word.startswith("-"):
        return _options(actions)
    if before and before[-1] in with_value:
        return _values(by_option[before[-1]])
    pairs = zip(["", *before], before)
    given = [w for previous, w in pairs if not w.startswith("-") and previous not in with_value]
    positionals = [action for action in actions if not action.option_strings]
    for action in positionals[len(given) :] or positionals[-1:]:
        return _values(action)
    return ()


def _options(actions: Iterable[argparse.Action]) -> list[str]:
    shown = [action for action in actions if action.help != argparse.SUPPRESS]
    return [o for action in shown for o in action.option_strings if o.startswith("--")]


def _values(action: argparse.Action) -> Iterable[str]:
    """The values of an option or argument, if they are known."""
    if action.choices is not None:
        return action.choices
    if action.dest in _NETWORKS:
        from jaxcnn.analysis import facts

        return (*facts.names(), *facts.aliases())
    if action.dest == "config":
        from jaxcnn import configs

        return configs.names()
    if action.dest == "study":
        from jaxcnn.studies import catalog

        return catalog.STUDIES
    if action.dest == "overrides":
        from jaxcnn.training.config import schema

        return [f"{field}=" for field in schema.FIELDS]
    return ()
