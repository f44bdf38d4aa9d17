"""How much quicker `ops.conv` in groups is than XLA's grouped convolution, by layer.

    python benchmarks/grouped_conv.py
    python benchmarks/grouped_conv.py --rounds 1

Forward and both gradients at a small batch, XLA's form and ours in turn in one process. A row's
ratio is XLA's time over ours. Raw figures go to `results/grouped_conv.json`.
"""

from __future__ import annotations

import argparse
import functools

import harness
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import ops
from jaxcnn.ops import reference
from jaxcnn.reporting.tables import text_table
from jaxcnn.runtime.compilation import jit

BATCH = 4

# name, size, input channels, output channels, kernel, stride, padding, groups
LAYERS = [
    ("AlexNet conv2", 27, 96, 256, 5, 1, 2, 2),
    ("AlexNet conv4", 13, 384, 384, 3, 1, 1, 2),
    ("ResNeXt-50 32x4d, stage 1", 56, 128, 128, 3, 1, 1, 32),
    ("ResNeXt-50 32x4d, stage 2, first", 56, 256, 256, 3, 2, 1, 32),
    ("ResNeXt-50 32x4d, stage 3", 14, 512, 512, 3, 1, 1, 32),
    ("ResNeXt-50 32x4d, stage 4", 7, 1024, 1024, 3, 1, 1, 32),
    ("DPN-92, stage 3", 14, 384, 384, 3, 1, 1, 32),
]


def measure(layer, rounds: int) -> dict:
    name, size, cin, cout, kernel, stride, padding, groups = layer
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((BATCH, size, size, cin)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((kernel, kernel, cin // groups, cout)), jnp.float32)
    options = {"stride": (stride,) * 2, "padding": ((padding,) * 2,) * 2, "groups": groups}
    row: dict = {"layer": name, "groups": groups, "batch": BATCH}
    for part in ("forward", "gradients"):
        contenders = {}
        for form, function in (("ours", ops.conv), ("native", reference.conv)):
            run = functools.partial(function, **options)
            if part == "gradients":
                g = jnp.ones_like(run(x, w))
                compiled = jit(lambda x, w, g, run=run: jax.vjp(run, x, w)[1](g))
                contenders[form] = functools.partial(compiled, x, w, g)
            else:
                contenders[form] = functools.partial(jit(run), x, w)
        row[part] = harness.ratios(
            harness.alternate(contenders, rounds=rounds, seconds=0.2), "ours"
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for layer in LAYERS:
        rows.append(measure(layer, args.rounds))
        harness.save("grouped_conv", rows)
    header = ["layer", "groups"]
    for part in ("forward", "gradients"):
        header += [f"{part}: XLA ms", "ours ms", "ratio"]
    table = []
    for row in rows:
        cells = [row["layer"], str(row["groups"])]
        for part in (row["forward"], row["gradients"]):
            cells += [f"{1e3 * part[form]['seconds']:.1f}" for form in ("native", "ours")]
            cells += [f"{part['native']['ratio']:.1f}"]
        table.append(cells)
    print(text_table(header, table))


if __name__ == "__main__":
    main()
