"""Trains LeNet-5 on digits for five steps, and prints which files of the package took part.

Its arguments are the configuration and the working directory. The last line is JSON: {phase: files
with a function that ran}, of the phases "begin", "loop" (from the first batch to the last
checkpoint) and "end", and "traced" (in any phase, while JAX traced a function).
"""

import json
import sys
import threading
from pathlib import Path

from jax._src.core import trace_state_clean

PACKAGE = str(Path(__file__).resolve().parents[2] / "jaxcnn") + "/"
OF_A_FUNCTION = 1  # inspect.CO_OPTIMIZED: not the body of a module or a class
seen: dict[str, set[str]] = {"begin": set(), "loop": set(), "end": set(), "traced": set()}
phase = "begin"


def trace(frame, event, argument):
    global phase
    code = frame.f_code
    if code.co_flags & OF_A_FUNCTION and code.co_filename.startswith(PACKAGE):
        file = code.co_filename.removeprefix(PACKAGE)
        if (file, code.co_name) == ("training/loop.py", "next_batch"):
            phase = "loop"
        if (file, code.co_name) == ("training/loop.py", "_draw"):  # after the last checkpoint
            phase = "end"
        seen[phase if trace_state_clean() else "traced"].add(file)


def main(config, workdir):
    threading.settrace(trace)
    sys.settrace(trace)
    from jaxcnn.cli.train import train_and_show
    from jaxcnn.training import read_config

    code = train_and_show(read_config(config, ["train.devices=1"]), workdir)
    sys.settrace(None)
    print(json.dumps({name: sorted(files) for name, files in seen.items()}))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
