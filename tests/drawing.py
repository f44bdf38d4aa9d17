"""Variables and images drawn by NumPy: quicker than `model.init` where values do not matter."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np


def draw_variables(model, images_shape, *, seed=0, **call):
    """Variables of `model` with fan-in scaled normal kernels and plausible statistics."""
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros(images_shape), **call), jax.random.key(0)
    )

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("['var']") or name.endswith("['scale']"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        elif len(leaf.shape) < 2:
            value = 0.1 * rng.standard_normal(leaf.shape)
        else:
            value = rng.standard_normal(leaf.shape) * np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(value, leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return {k: v for k, v in variables.items() if k != "endpoints"}


def draw_images(shape, *, seed=0):
    """Standard normal f32 images."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)
