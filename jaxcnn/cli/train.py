"""`jaxcnn train`: trains with a recipe or a configuration file."""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.training.train import Training


def register(subparsers) -> None:
    """Adds `jaxcnn train` to the commands."""
    parser = subparsers.add_parser(
        "train",
        help="train a network with a recipe or a configuration file",
        description="Trains with a recipe or a configuration file, and writes checkpoints, metrics "
        "and figures. Without CONFIG, lists the recipes or, with --resume or --extend, continues "
        "the run in WORKDIR with the run's own configuration. train.members=N, or "
        "train.members=FIELD=VALUE,VALUE, trains several runs that differ in a seed or the "
        "learning rate, in WORKDIR/member_0 and so on. Exit codes: 0 done, 1 the loss was not "
        "finite, 2 a mistake in the arguments, the configuration or the data, 3 a file could not "
        "be read or written after the run had started, 4 an error in JAX or out of memory, 5 "
        "another process has ended, 70 an unexpected error, 143, 130 or 129 stopped by SIGTERM, "
        "Ctrl-C or SIGHUP (a closed terminal) with a checkpoint.",
        epilog="example: jaxcnn train cifar_resnet:56 train.seed=1 --workdir runs/r56",
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="name of a recipe or path of a file, with ':argument' if it takes one; an ensemble "
        "(ensembles/senet) trains its members in WORKDIR/member_0 and so on",
    )
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument(
        "--workdir", help="directory of the run (default: runs/ and the name of CONFIG)"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="continue the run in WORKDIR")
    mode.add_argument("--overwrite", action="store_true", help="delete the run in WORKDIR first")
    parser.add_argument(
        "--extend", action="store_true", help="continue the run in WORKDIR to a different length"
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="make GPU runs reproducible to the bit: train.deterministic=True",
    )
    parser.add_argument(
        "--profile", action="store_true", help="profile ten calls of the step: log.profile=10"
    )
    several = parser.add_argument_group("several processes (see docs/scaling.md)")
    several.add_argument(
        "--distributed", action="store_true", help="started by SLURM, MPI, Kubernetes, Cloud TPU"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    several.add_argument("--processes", metavar="N", type=int, help="number of processes")
    several.add_argument("--process", metavar="I", type=int, help="index of this process, from 0")


def run(args: argparse.Namespace) -> int:
    """Trains, or lists the recipes; returns the exit code."""
    option = next((o for o in ("resume", "extend", "overwrite") if getattr(args, o)), None)
    if option and _is_override(args.config):
        args.config, args.overrides = None, [args.config, *args.overrides]
    if args.config is None and option is None:
        flags = (args.distributed, args.profile, args.deterministic)
        values = (args.workdir, args.coordinator, args.processes, args.process)
        if any(flags) or any(value is not None for value in values):
            raise ValueError("CONFIG is missing; `jaxcnn train` without options lists the recipes")
        return _list_recipes()
    from jaxcnn.cli import common
    from jaxcnn.runtime import distributed
    from jaxcnn.training.config import files as config_files
    from jaxcnn.training.ensemble import described
    from jaxcnn.training.train import train_ensemble

    common.quiet()
    args.overrides += config_files.shorthands(
        deterministic=args.deterministic, profile=args.profile
    )
    whole = args.config is not None and described.is_ensemble(args.config)
    if whole:
        config = args.config
    elif args.config is None:
        config = _read_run(f"--{option}", args.workdir)
        config_files.apply_overrides(config, config_files.split_overrides(args.overrides))
    else:
        config = config_files.read_config(args.config, args.overrides)
    return train_and_show(
        config,
        args.workdir or default_workdir(args.config),
        resume=args.resume,
        overwrite=args.overwrite,
        extend=args.extend,
        program="jaxcnn",
        debug=args.debug,
        train=functools.partial(train_ensemble, overrides=args.overrides) if whole else None,
        processes=distributed.distributed_options(
            args.distributed,
            coordinator=args.coordinator,
            processes=args.processes,
            process=args.process,
        ),
    )


def default_workdir(config: str) -> Path:
    """The default directory: runs/cifar_resnet_56 for "cifar_resnet:56" or its file.

    It is runs/ensembles_senet for "ensembles/senet", which is not the recipe "senet".
    """
    *folders, name = Path(config).parts
    name = re.sub(r"\.py(?=:|$)", "", name)
    if folders[-1:] == ["ensembles"]:
        name = f"ensembles_{name}"
    return Path("runs") / re.sub("[:,]", "_", name)


def _is_override(text: str | None) -> bool:
    """Whether the first argument is a FIELD=VALUE, with no CONFIG before it."""
    return re.match(r"\w+(\.\w+)+=", text or "") is not None


def _read_run(option: str, workdir: str | None) -> Any:
    """Reads the configuration of the run in a directory.

    Raises:
      ValueError: the directory is not given or has no run, or the option needs a CONFIG.
    """
    from jaxcnn._files import any_path
    from jaxcnn.training.output import records

    if option == "--overwrite":
        raise ValueError("--overwrite needs CONFIG, the name of a recipe or a configuration file")
    if workdir is None:
        raise ValueError(f"{option} needs CONFIG, or --workdir with the directory of a run")
    try:
        return records.read_run_config(any_path(workdir))
    except ValueError as error:
        raise ValueError(f"{option} needs CONFIG: {error}") from error


def _size_note(config: Any) -> str | None:
    """A note if photos are trained at one size and tested at another, else None."""
    data = {} if isinstance(config, str) else config["data"]
    size, tested = data.get("image_size"), data.get("eval_size")
    if not size or not tested or size == tested:
        return None
    return (
        f"training images have {size} pixels, test images {tested} (of {data['eval_resize']}); set "
        f"data.eval_size={size} and data.eval_resize=none to test at the training size"
    )


def _list_recipes() -> int:
    """Prints each recipe with the error to expect and its source."""
    import shutil
    import textwrap

    from jaxcnn import configs

    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    for recipe in map(configs.describe, configs.names()):
        print(recipe.name)
        for text in (recipe.title, recipe.target):
            print(textwrap.indent(textwrap.fill(text, width - 4), "    "))
    print("\n`jaxcnn train NAME` trains with a recipe, `jaxcnn train NAME:smoke` for five steps.")
    return 0


def train_and_show(
    config: Any,
    workdir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
    program: str = "train.py",
    debug: bool = False,
    train: Callable[..., Training] | None = None,
    processes: Mapping[str, Any] | None = None,
) -> int:
    """Trains, with a display in the terminal. An error is one line on stderr.

    With several processes, the first one has the display, and each prints its own errors.

    Args:
      config: the configuration, or the file of an ensemble.
      workdir: directory of the run.
      resume: see `jaxcnn.training.train`.
      overwrite: likewise.
      extend: likewise.
      program: name of the command, for messages.
      debug: print the traceback of an error.
      train: replaces `jaxcnn.training.train`.
      processes: arguments of `distributed.begin`; None for a single process.

    Returns:
      The exit code, see `jaxcnn.runtime.exit_codes`; 143, 130 or 129 if SIGTERM, Ctrl-C or SIGHUP
      stopped the training, with a checkpoint to resume from.
    """
    from jaxcnn.cli import common
    from jaxcnn.reporting import console
    from jaxcnn.runtime import distributed, exit_codes, watch
    from jaxcnn.training.train import train as train_run

    begun = several = False
    try:
        if processes is not None:
            distributed.begin(**processes)
        several = distributed.count() > 1
        if text := _size_note(config):
            print(f"note: {text}", file=sys.stderr)
        options = {"resume": resume, "overwrite": overwrite, "extend": extend}
        training = (train or train_run)(config, workdir, **options)
        with training as reports:
            first = list(itertools.islice(reports, 1))
            begun = True  # everything is checked
            out = None if distributed.is_first() else io.StringIO()
            # config.json does not hold the configurations of an ensemble of different networks
            command = "the same command and --resume" if isinstance(config, str) else None
            return console.show(itertools.chain(first, reports), workdir, out, resume=command)
    except Exception as error:
        mistake = not begun and isinstance(error, common.USER_MISTAKES)  # of all processes
        if several and not mistake:
            watch.await_loss()
        text, code = common.describe(error, begun=begun, debug=debug)
        if code == exit_codes.NOT_FINITE:
            text += _good_checkpoint(workdir)
    except KeyboardInterrupt:
        text = (
            "interrupted; the steps since the last checkpoint, if any, were not saved; "
            "--resume continues from there"
        )
        code = 128 + signal.SIGINT
    if not several:
        print(f"{program}: {text}", file=sys.stderr)
        return code
    print(f"{program}: process {distributed.number()}: {text}", file=sys.stderr)
    distributed.leave(code)


def _good_checkpoint(workdir: str | Path) -> str:
    """Names the checkpoint that a run has left; "" for several runs."""
    from jaxcnn._files import any_path
    from jaxcnn.training.output import workdir as directories

    path = any_path(workdir)
    if not (path / directories.CHECKPOINTS).is_dir():
        return ""
    step = directories.newest_step(path)
    if step is None:
        return "; no checkpoint was saved"
    return f"; the checkpoint of step {step:,} is good"
