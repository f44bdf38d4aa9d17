"""The flags of `train.py`, on absl and `ml_collections.config_flags`.

    python train.py --config=configs/cifar_resnet.py:56 --config.train.seed=1 --workdir=runs/r56

Unlike with `config_flags` alone, values are parsed as by `jaxcnn train`: "none" clears a field, a
duration in steps clears the one in epochs, sections such as `optimizer` accept new fields, and
errors are one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

_DEFAULT = "lenet_digits"
_CONFIG_HELP = (
    "Recipe or configuration file, with ':argument' if it takes one; ':smoke' trains for five "
    "steps only. --config.a.b=value sets a field."
)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags, as `flags_parser` of `absl.app.run`. `FLAGS.config` is the configuration.

    An error ends the process with one line.

    Returns:
      The program, and the recipe or file, for `main`.
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
        _define_overrides(spec, rest)
        if left := values(rest)[1:]:
            raise flags.Error(f"unexpected argument {left[0]!r}")
        _complete_config(values)
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
    """Trains with the parsed flags; returns the exit code, see `cli.train`."""
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
    """Defines all flags but --config, as flags of the program, so that --help lists them."""
    known = set(values)
    text, switch, number = flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer
    text("workdir", None, "Directory of the run; by default runs/ and the name of the config.")
    switch("resume", False, "Continue the run in workdir.")
    switch("overwrite", False, "Delete the run in workdir first.")
    switch("extend", False, "Continue the run in workdir to a different length.")
    switch("deterministic", False, "Make GPU runs reproducible to the bit.")
    switch("profile", False, "Profile ten calls of the step: log.profile=10.")
    switch("distributed", False, "One of several processes started by SLURM, MPI, Kubernetes, TPU.")
    text("coordinator", None, "HOST:PORT of the first process.")
    number("processes", None, "Number of processes.")
    number("process", None, "Index of this process, from 0.")
    for name in set(values) - known:
        values.register_key_flag_for_module(program, values[name])


def _spec(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the value of --config, and all other arguments."""
    first = flags.FlagValues()
    flags.DEFINE_string("config", _DEFAULT, _CONFIG_HELP, flag_values=first)
    first.set_gnu_getopt(True)
    rest = first(argv, known_only=True)
    return str(first["config"].value), rest


def _define_overrides(spec: str, rest: Sequence[str]) -> None:
    """Reads the configuration, and defines a flag for each field that the arguments set."""
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


def _complete_config(values: flags.FlagValues) -> None:
    """Clears superseded fields, applies --deterministic and --profile, and locks the config."""
    from jaxcnn.training.config import files

    config: ConfigDict = values.config
    files.clear_superseded(config, config_flags.get_override_values(values["config"]))
    for text in files.shorthands(deterministic=values.deterministic, profile=values.profile):
        files.apply_overrides(config, files.split_overrides([text]))
    config.lock()


class _Field(flags.ArgumentParser):
    """Parses a field of a type as `jaxcnn train` does."""

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
