"""How far the compiled gradient of the networks of `photo_recipes.py` is from the uncompiled one.

    python benchmarks/lost_gradients.py                # of this version
    cd OLD && .venv/bin/python .../lost_gradients.py   # of another, such as 7e2712a
    python benchmarks/lost_gradients.py --size 64      # on images of another size

Without compilation every operation rounds alone, and a maximum equals an element of its window. In
the first version of the package the compiled gradient of max pooling relied on that, and was wrong
where XLA computed the elements anew with other roundings.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import photo_recipes

import jaxcnn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, metavar="PIXELS", help="of the images")
    parser.add_argument("--batch", type=int, default=64, metavar="IMAGES", help="(%(default)s)")
    args = parser.parse_args()
    for name, (size, options) in photo_recipes.NARROW.items():
        size = args.size or size
        if "min_size" in options:
            options = {**options, "min_size": size}
        print(f"{name} on {args.batch} images of {size}x{size}, relative distances:")
        for path, distance in distances(name, options, size, args.batch):
            print(f"  {path:30} {distance:.1e}")


def distances(name: str, options: dict, size: int, batch: int) -> list[tuple[str, float]]:
    """Returns the five parameters whose compiled gradient is farthest from the uncompiled one.

    Args:
      name: of the network.
      options: its options.
      size: height and width of the images.
      batch: number of images.

    Returns:
      (parameter, norm of the difference over the norm of the uncompiled gradient), descending.
    """
    model = jaxcnn.create_model(name, num_classes=10, **options)
    images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def loss(params):
        given = {**variables, "params": params}
        logits, _ = model.apply(given, images, train=True, mutable=["batch_stats"])
        return jax.nn.log_softmax(logits)[:, 0].mean()

    found = jax.device_get(jax.jit(jax.grad(loss))(variables["params"]))
    with jax.disable_jit():
        right = jax.device_get(jax.grad(loss)(variables["params"]))
    far = {}
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(right), jax.tree.leaves(found)
    ):
        *layers, kind = (key.key for key in path)
        if kind != "bias" or "bn" in layers[-1]:  # a bias before BatchNorm has a gradient of 0
            far["/".join([*layers, kind])] = float(
                jnp.linalg.norm(leaf - other) / jnp.linalg.norm(leaf)
            )
    return sorted(far.items(), key=lambda item: -item[1])[:5]


if __name__ == "__main__":
    main()
