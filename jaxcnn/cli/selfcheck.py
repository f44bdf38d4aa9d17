"""`jaxcnn selfcheck`: checks the results of this device."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn selfcheck` to the commands."""
    subparsers.add_parser(
        "selfcheck",
        help="check each kind of layer on this device",
        description="Computes one small training step with each kind of layer on the default "
        "device, and compares loss, gradients and updated parameters with a second implementation "
        "in float64 on the CPU. Errors are relative to the largest value. The exit code is 3 if "
        "one is too large.",
        epilog="example: jaxcnn selfcheck",
    )


def run(args: argparse.Namespace) -> int:
    """Checks each kind of layer and prints the errors; returns the exit code."""
    from jaxcnn.analysis import selfcheck
    from jaxcnn.analysis.layer_kinds import KINDS
    from jaxcnn.cli import common
    from jaxcnn.runtime import exit_codes

    rows = list(common.track("kinds of layers", selfcheck.check(), len(KINDS)))
    print(selfcheck.to_text(rows))
    print(f"\n{selfcheck.summary(rows)}")
    return exit_codes.DONE if all(row.ok for row in rows) else exit_codes.FAILED
