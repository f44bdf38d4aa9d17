"""`jaxcnn train`: what `train.py` does, for a configuration file anywhere."""

from __future__ import annotations

import argparse
import functools


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a network by a configuration file",
        description="Trains as a configuration file says, and writes checkpoints, metrics and "
        "figures. Exit codes: 0 done, 1 the loss was not finite, 2 a mistake in what was asked "
        "for, 143 or 130 stopped by SIGTERM or Ctrl-C with a checkpoint. With train.members=N, or "
        "train.members=FIELD=VALUE,VALUE, runs that differ in a seed or the learning rate are "
        "trained as one, into WORKDIR/member_0 and so on.",
        epilog="example: jaxcnn train configs/cifar_resnet.py:56 train.seed=1 --workdir runs/r56",
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="path of the file, with ':argument' if it takes one; or of one that describes an "
        "ensemble (configs/ensembles): its members are trained into WORKDIR/member_0 and so on",
    )
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument("--workdir", required=True, help="where everything is written")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with the run in workdir")
    how.add_argument("--overwrite", action="store_true", help="delete the run in workdir")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits in every run on a GPU too: train.deterministic=True",
    )
    parser.add_argument(
        "--profile", action="store_true", help="trace ten calls of the step: log.profile=10"
    )
    several = parser.add_argument_group("one of several processes (see docs/scaling.md)")
    several.add_argument(
        "--distributed", action="store_true", help="started by SLURM, MPI, Kubernetes, Cloud TPU"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process")
    several.add_argument("--processes", metavar="N", type=int, help="how many there are")
    several.add_argument("--process", metavar="I", type=int, help="which one this is, from 0")


def run(args: argparse.Namespace) -> int:
    from absl import logging

    from jaxcnn.training import console, ensembles, hosts, reading

    logging.set_verbosity(logging.FATAL)  # Orbax's; what matters is raised and shown
    args.overrides += reading.shorthands(deterministic=args.deterministic, profile=args.profile)
    whole = ensembles.is_ensemble(args.config)
    return console.run(
        args.config if whole else reading.read_config(args.config, args.overrides),
        args.workdir,
        resume=args.resume,
        overwrite=args.overwrite,
        program="jaxcnn train",
        debug=args.debug,
        train=functools.partial(ensembles.train_ensemble, overrides=args.overrides)
        if whole
        else None,
        processes=hosts.asked_for(
            args.distributed,
            coordinator=args.coordinator,
            processes=args.processes,
            process=args.process,
        ),
    )
