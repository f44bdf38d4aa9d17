"""The flags of `train.py`, on absl and `ml_collections.config_flags`.

    python train.py --config=configs/cifar_resnet.py:56 --config.train.seed=1 --workdir=runs/r56

Beyond what `config_flags` does by itself, values are read as `jaxcnn train` reads them: "none"
clears a field, a duration in steps clears the one in epochs, sections such as `optimizer` take new
fields, and a mistake is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

_DEFAULT = "lenet_digits"
_CONFIG_HELP = (
    "Recipe or configuration file, with ':argument' if it takes one, such as ':smoke' for a run of "
    "seconds. --config.a.b=value sets a field."
)


def parse(argv: Sequence[str]) -> list[str]:
    """The `flags_parser` of `absl.app.run`: the configuration is `FLAGS.config` then.

    Returns:
      The program and the recipe or file, for `main`. A mistake ends the process with one line.
    """
    from jaxcnn._checks import one_line
    from jaxcnn.cli import common
    from jaxcnn.runtime import compilation_cache, exit_codes, heap

    common.print_any_name()
    common.quiet()
    heap.keep_before_jax()
    compilation_cache.use()
    values = flags.FLAGS
    _define(values, argv[0])
    try:
        spec, rest = _spec(argv)
        _define_overrides(values, spec, rest)
        if left := values(rest)[1:]:
            raise flags.Error(f"unexpected argument {left[0]!r}")
        _settle(values)
    except SystemExit:  # of --help, for which absl has the code 1
        sys.exit(exit_codes.DONE)
    except (flags.Error, TypeError) as error:
        print(f"train.py: error: {one_line(error)}", file=sys.stderr)
        sys.exit(exit_codes.MISTAKE)
    except Exception as error:
        text, code = common.describe(error)
        print(f"train.py: {text}", file=sys.stderr)
        sys.exit(code)
    return [argv[0], spec]


def main(argv: Sequence[str]) -> int:
    """Trains by the flags that were parsed; returns the exit code, see `cli.train`."""
    from jaxcnn.cli.train import default_workdir, train_and_show
    from jaxcnn.runtime import distributed

    values = flags.FLAGS
    return train_and_show(
        values.config,
        values.workdir or default_workdir(argv[1]),
        resume=values.resume,
        overwrite=values.overwrite,
        extend=values.extend,
        processes=distributed.distributed_options(
            values.distributed,
            coordinator=values.coordinator,
            processes=values.processes,
            process=values.process,
        ),
    )


def _define(values: flags.FlagValues, program: str) -> None:
    """Defines all flags but --config, as those of the program for --help."""
    known = set(values)
    text, switch, number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
    text("workdir", None, "Where everything is written; by default runs/ and the config's name.")
    switch("resume", False, "Continue the run that workdir holds.")
    switch("overwrite", False, "Delete the run that workdir holds.")
    switch("extend", False, "Continue the run that workdir holds to another length.")
    switch("deterministic", False, "The same bits on every run, also on a GPU.")
    switch("profile", False, "Trace ten calls of the step: log.profile=10.")
    switch("distributed", False, "One of several processes started by SLURM, MPI, Kubernetes, TPU.")
    text("coordinator", None, "HOST:PORT of the first process, elsewhere.")
    number("processes", None, "How many processes there are.")
    number("process", None, "Which of them this is, from 0.")
    for name in set(values) - known:
        values.register_key_flag_for_module(program, values[name])


def _spec(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --config, and all other arguments."""
    first = flags.FlagValues()
    flags.DEFINE_string("config", _DEFAULT, _CONFIG_HELP, flag_values=first)
    first.set_gnu_getopt(True)
    rest = first(argv, known_only=True)
    return str(first["config"].value), rest


def _define_overrides(values: flags.FlagValues, spec: str, rest: Sequence[str]) -> None:
    """Reads the configuration, and defines a flag for each of its fields that is to be set."""
    from jaxcnn.training.config.files import read_config

    config = read_config(spec).unlock()
    for kind in (int, float, bool, str, tuple):
        config_flags.register_flag_parser_for_type(kind, _Field(kind))
    try:
        config_flags.DEFINE_config_dict(
            "config",
            config,
            _CONFIG_HELP,
            sys_argv=list(rest),
            lock_config=False,
            accept_new_attributes=True,
        )
    except (KeyError, AttributeError) as error:
        raise ValueError(f"unknown section of the configuration: {error.args[0]}") from error


def _settle(values: flags.FlagValues) -> None:
    """Locks the configuration, after what follows from the fields that were set."""
    from jaxcnn.training.config import files

    config: ConfigDict = values.config
    files.clear_superseded(config, config_flags.get_override_values(values["config"]))
    for text in files.shorthands(deterministic=values.deterministic, profile=values.profile):
        files.apply_overrides(config, files.split_overrides([text]))
    config.lock()


class _Field(flags.ArgumentParser):
    """Reads a field of a type as `jaxcnn train` does."""

    def __init__(self, kind: type):
        super().__init__()
        self._kind = kind

    def parse(self, argument: Any) -> Any:
        from jaxcnn.training.config.files import parse_value

        if not isinstance(argument, str):
            return argument
        try:
            return parse_value(argument, self._kind)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(f"it must be of type {self._kind.__name__}") from error
