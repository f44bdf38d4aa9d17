"""Trains a network: `python train.py --config=configs/cifar_resnet.py --workdir=runs/resnet20`.

Without arguments: LeNet-5 on handwritten digits, into runs/lenet_digits. A field of the
configuration is set by `--config.train.seed=1`; `--config=configs/lenet_digits.py:smoke` is a run
of seconds.

Exit codes: 0 done, 1 the loss was not finite, 2 a mistake in what was asked for, 143 or 130 stopped
by SIGTERM or Ctrl-C with a checkpoint; go on with --resume. Compiled programs are kept between
runs in the user's folder of caches; JAXCNN_CACHE=0 turns that off.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

CONFIG = flags.DEFINE_string(
    "config",
    str(Path(__file__).parent / "configs" / "lenet_digits.py"),
    "Configuration file, with ':smoke' after it for a short run. --config.a.b=value sets a field.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, metrics and figures go; by default runs/<config's name>."
)
RESUME = flags.DEFINE_bool("resume", False, "Go on with the run that workdir holds.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete the run that workdir holds.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "The same bits in every run on a GPU too: train.deterministic=True."
)
PROFILE = flags.DEFINE_bool("profile", False, "Trace ten calls of the step: log.profile=10.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes that SLURM, MPI, Kubernetes or a TPU started."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process, elsewhere.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")

_OVERRIDES: list[str] = []


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Takes --config.a.b=value aside and leaves the rest to absl; a mistake is one line."""
    _OVERRIDES[:] = [a.lstrip("-")[len("config.") :] for a in argv[1:] if _is_override(a)]
    try:
        rest = flags.FLAGS([a for a in argv if not _is_override(a)])
        if rest[1:]:
            raise flags.Error(f"unexpected argument {rest[1]!r}")
    except flags.Error as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    return rest


def _is_override(argument: str) -> bool:
    return argument.startswith(("--config.", "-config."))


def main(argv: Sequence[str]) -> int:
    del argv
    from jaxcnn.cli import common
    from jaxcnn.runtime import compilation_cache, heap

    common.quiet()
    heap.keep_before_jax()
    compilation_cache.use()
    from jaxcnn._checks import one_line
    from jaxcnn.cli.train import train_and_show
    from jaxcnn.runtime import distributed
    from jaxcnn.training.config import files as config_files

    try:
        shorthands = config_files.shorthands(
            deterministic=DETERMINISTIC.value, profile=PROFILE.value
        )
        fields = config_files.read_config(CONFIG.value, [*_OVERRIDES, *shorthands])
    except ValueError as error:
        print(f"train.py: error: {one_line(error)}", file=sys.stderr)
        return common.MISTAKE
    workdir = WORKDIR.value or Path("runs") / _run_name(CONFIG.value)
    processes = distributed.distributed_options(
        DISTRIBUTED.value,
        coordinator=COORDINATOR.value,
        processes=PROCESSES.value,
        process=PROCESS.value,
    )
    return train_and_show(
        fields,
        workdir,
        resume=RESUME.value,
        overwrite=OVERWRITE.value,
        processes=processes,
    )


def _run_name(config: str) -> str:
    """ "configs/cifar_resnet.py:56,split" -> "cifar_resnet_56_split"."""
    return Path(config).name.replace(".py", "").replace(":", "_").replace(",", "_")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
