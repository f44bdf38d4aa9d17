"""`jaxcnn plan CONFIG --on SLICE`: plans a run on a TPU slice that need not be available."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.analysis.plan import Target


def register(subparsers) -> None:
    """Adds `jaxcnn plan` to the commands."""
    parser = subparsers.add_parser(
        "plan",
        help="compile a run for a TPU slice you do not have: memory, traffic, maximum speed",
        description="Compiles the training and evaluation steps of a run for a TPU slice, which "
        "need not be available, or for the devices of this machine. Prints XLA's counts for one "
        "chip: memory by kind, FLOPs, bytes and collectives; the minimum time for each at the "
        "chip's published peak rates, and which of them limits the step; the maximum number of "
        "images per second; and the minimum number of hours for the whole run. TPUs need an "
        "extra: pip install 'jaxcnn[tpu]'. A network for ImageNet takes minutes to compile. If the "
        "data are not available, their published sizes are used. The exit code is 3 if the chip "
        "has too little memory.",
        epilog="example: jaxcnn plan resnet_imagenet:50 model.dtype=bfloat16 train.batch_size=1024 "
        "train.bn_sync=local --on v5e:2x4 --on v4-16",
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="name of a recipe or path of a file, as for `jaxcnn train`"
    )
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument(
        "--on",
        metavar="SLICE",
        action="append",
        required=True,
        help="v5e:4x4, v4:2x2x4, v5litepod-16, v4-32, v5p-128, v6e-8 and so on, or `local`; can be "
        "repeated",
    )
    parser.add_argument(
        "--fit", action="store_true", help="find the largest batch size that fits into memory"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to FILE")
    parser.set_defaults(compiles_anew=True)  # JAX cannot read cached programs for a slice


def run(args: argparse.Namespace) -> int:
    """Plans for each slice; exit code 3 if the run does not fit on one of them."""
    import json
    import os
    import sys

    from jaxcnn._files import output_path, write_output
    from jaxcnn.analysis.chips import LOCAL, parse_slice
    from jaxcnn.cli import common
    from jaxcnn.runtime import exit_codes

    for name in args.on:
        if name != LOCAL:
            parse_slice(name)
    file = args.json and output_path(args.json)
    if LOCAL not in args.on and "jax" not in sys.modules:
        os.environ["JAX_PLATFORMS"] = "cpu"  # the program is only compiled
    from jaxcnn.analysis import plan, plan_text
    from jaxcnn.training.config import files as config_files
    from jaxcnn.training.ensemble import described

    common.quiet()
    if described.is_ensemble(args.config):
        raise ValueError(f"{args.config} is an ensemble; plan one of its members")
    config = config_files.read_config(args.config, args.overrides)
    code, found = exit_codes.DONE, []
    targets = [plan.find_target(name) for name in args.on]
    for target in targets if args.fit else ():
        plan.known_memory(target)
    for target in targets:
        try:
            planned = plan.plan_for(config, target)
            found.append({"fits": True, **plan_text.to_json(planned)})
            print(plan_text.to_text(planned), end="\n\n", flush=True)
        except plan.DoesNotFit as error:
            section = "train" if error.step == "training" else "eval"
            hint = "; --fit finds the largest batch size that does"
            hint = hint if section == "train" and not args.fit else ""
            size = f"config.{section}.batch_size {config[section].batch_size:,}"
            what = f"{config.model.name} with {size}"
            print(f"{what} does not fit on {target.name}: {error}{hint}", flush=True)
            code = exit_codes.FAILED
            found.append({"fits": False, "target": target.name, "reason": str(error)})
        if args.fit:
            text, found[-1]["largest_batch_size"] = _fit(config, target)
            print(text, end="\n\n", flush=True)
        if file:  # after each slice, since the next one may take long
            write_output(file, json.dumps(found, indent=1) + "\n")
    return code


def _fit(config: Any, target: Target) -> tuple[str, int | None]:
    """A line on the largest batch size, and the size; None if none fits.

    Prints a line on standard error for each size that is tried.
    """
    import sys

    from jaxcnn.analysis import plan

    def report(size: int, need: float) -> None:
        print(f"batch size {size:,} needs {need / 2**30:.2f} GiB", file=sys.stderr, flush=True)

    fits, too_large = plan.largest_batch(config, target, report)
    if not fits:
        text = f"no batch size fits on {target.name}; {too_large:,} is the smallest that was tried"
        return text, None
    above = "" if too_large is None else f"; {too_large:,} does not"
    return f"largest batch size that fits on {target.name}, of those tried: {fits:,}{above}", fits
