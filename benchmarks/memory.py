"""Peak memory of training steps: jaxcnn's, with and without `remat="cheap"`, and PyTorch's.

    python benchmarks/memory.py --torch-python /tmp/torch/bin/python          # minutes on a CPU
    python benchmarks/memory.py --torch-python ... --models resnet50 --batch 8 --save

The step is that of `against_torch.py`, in float32: forward, cross-entropy, backward and SGD with
momentum. jaxcnn's figure is that of XLA's allocator for the compiled step: arguments, temporaries
and results that do not reuse the arguments' memory. PyTorch's is the sum of what is there before a
step (parameters, momenta, gradients, statistics, images) and the highest level of what its
allocator records during the step. The times of jaxcnn's two forms are measured in turn, with few
images: the C library maps a large block anew in each step, which would hide what recomputing costs.
"""

from __future__ import annotations

import argparse
from typing import Any

import harness
import jax
from against_torch import Torch, in_new_process, peer_step

from jaxcnn import model_info
from jaxcnn.runtime import compilation

MODELS = ("resnet50", "vgg16", "dpn92", "inception_resnet_v2")
TIMED = 4  # images of the steps that are timed
REMAT = {"jaxcnn": False, "cheap": "cheap"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", required=True, help="an interpreter that has PyTorch")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--batch", type=int, default=16, help="images of a step (16)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write results/memory.json")
    args = parser.parse_args()
    rows, about = [], {}
    for name in args.models:
        with Torch(args.torch_python, 2) as torch:
            about = torch.about
            shape = list(model_info(name).input_size)
            forms = {
                form: torch("memory", form=form, model=name, batch=args.batch, shape=shape)
                for form in ("eager", "channels_last")
            }
        forms |= in_new_process(of_jaxcnn, name, args.batch, args.rounds)
        rows.append({"model": name, "batch": args.batch, "forms": forms})
        least = min(forms[form]["bytes"] for form in ("eager", "channels_last"))
        text = ", ".join(
            f"{form} {found['bytes'] / 2**20:,.0f} MiB ({found['bytes'] / least:.2f})"
            for form, found in forms.items()
        )
        print(
            f"{name} b{args.batch}: {text}; time of cheap {forms['cheap']['ratio']:.2f}", flush=True
        )
    if args.save:
        print(harness.save("memory", rows, machine=harness.machine() | {"torch": about}))


def of_jaxcnn(name: str, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Bytes of a step with each kind of rematerialization, and the ratio of their times."""
    found: dict[str, dict[str, float]] = {}
    runs = {}
    for form, remat in REMAT.items():
        compiled, _ = _step(name, batch, remat)
        found[form] = {"bytes": compilation.memory_bytes(compiled)}
        runs[form] = _repeated(*_step(name, TIMED, remat))
    times = harness.alternate(runs, rounds=rounds, seconds=1.0)
    for form, row in harness.ratios(times, "jaxcnn").items():
        found[form] |= row
    return found


def _step(name: str, batch: int, remat: Any) -> tuple[Any, list[Any]]:
    """The compiled step and its arguments."""
    call, arguments = peer_step(name, "train", batch, "float32", remat=remat)
    return call.lower(*arguments).compile(), list(arguments)


def _repeated(compiled: Any, held: list[Any]) -> Any:
    """A function that makes one step after another, since a step reuses its state's memory."""

    def run() -> jax.Array:
        held[0], loss = compiled(*held)
        return loss

    return run


if __name__ == "__main__":
    main()
