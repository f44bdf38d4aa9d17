"""A network of two convolutions with BatchNorm, data for it, and short runs of the real step."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import layers
from jaxcnn.training import parallel, state, step
from jaxcnn.training.input.preprocess import gather
from jaxcnn.training.optim import optimizers

SHAPE = (8, 8, 3)
CLASSES = 10


class Tiny(layers.Network):
    num_classes: int = CLASSES
    min_size: int = 4
    groups: int = 1
    dropout: float = 0.0
    aux_heads: bool = False

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        conv, norm = self.conv(), self.norm(train)
        x = nn.relu(norm(name="bn1")(conv(8, 3, padding=1, name="conv1")(x)))
        if self.aux_heads and self.wants_endpoints():
            aux = nn.Dense(self.num_classes, name="aux1_fc")(layers.global_avg_pool(x))
            self.endpoint("aux1", layers.as_output(aux))
        x = conv(8, 3, 2, 1, groups=self.groups, name="conv2")(x)
        x = nn.relu(norm(name="bn2")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(layers.global_avg_pool(x))
        return self.logits(x)


def draw_set(size, *, seed=0):
    """A resident set: images u8, labels i32."""
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (size, *SHAPE), np.uint8),
        "labels": rng.integers(0, CLASSES, size).astype(np.int32),
    }


def noisy(batch, keys):
    """Looks up, normalizes, and in training adds noise from each example's key."""
    ready = gather(batch)
    image = ready["image"].astype(jnp.float32) / 255 - 0.5
    if keys is not None:
        image += 0.1 * jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)
    return {"image": image, "label": ready["label"]}


def sgd(params: Any, *, rate=0.01, **options):
    schedule = {"name": "constant", "learning_rate": rate}
    return optimizers.make_optimizer({"name": "sgd", **options}, schedule, 100, 10, params)[0]


def begin(model, **options):
    """(optimizer, state) of a model."""
    params = state.abstract_variables(model, (1, *SHAPE))["params"]
    optimizer = sgd(params, **options)
    return optimizer, state.create_state(model, optimizer, jax.random.key(0), (1, *SHAPE))


@functools.cache
def train(
    mode,
    devices,
    *,
    steps=5,
    batch=16,
    bn_sync="global",
    wrap=lambda f: f,
    accumulate=1,
    reduce_dtype=None,
    **fields,
):
    """The state and the last metrics, on the host, after some steps on a resident set."""
    mesh = parallel.make_mesh(devices)
    axis = parallel.batch_norm_axis(mode, bn_sync, fields.get("bn_group"))
    model = Tiny(axis_name=axis, **fields)
    optimizer, start = begin(model, weight_decay=1e-3)
    axis = parallel.axis_name(mode)
    options = {"preprocess": noisy, "axis_name": axis}
    options |= {"accumulate": accumulate, "reduce_dtype": reduce_dtype}
    one = step.make_train_step(model, optimizer, **options)
    run = parallel.parallelize(wrap(one), mode, mesh, donate=True)
    resident = parallel.place_batch(draw_set(40), mesh)
    key = parallel.place_state(jax.random.key(1), mesh)
    now = parallel.place_state(start, mesh)
    for i in range(steps):
        index = np.random.default_rng(i).permutation(40)[:batch].astype(np.int32)
        now, metrics = run(now, resident | parallel.place_batch({"index": index}, mesh), key)
    return jax.device_get((now, metrics))
