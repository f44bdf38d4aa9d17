"""Variables and torch mappings of any network, without initializing it."""

import jax.numpy as jnp
import numpy as np

from jaxcnn.weights import layout


def state_dict(name, num_classes=None, *, auxiliary=True, **options):
    """A torch mapping of random f32 numbers with a network's keys and shapes."""
    random = np.random.default_rng(0)
    how = layout.describe(name, **options)
    classes = layout.class_count(how, {}) if num_classes is None else num_classes
    mapping = {}
    for leaf in how.leaves:
        if auxiliary or not leaf.is_auxiliary:
            mapping[leaf.key] = random.random(leaf.stored_shape(classes), np.float32)
            if leaf.key.endswith("running_var"):
                counter = leaf.key.replace("running_var", "num_batches_tracked")
                mapping[counter] = np.zeros((), np.int64)
    return mapping


def equal(a, b):
    """Whether two trees of arrays are equal bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(equal(a[k], b[k]) for k in a)
    return jnp.asarray(a).dtype == jnp.asarray(b).dtype and np.array_equal(a, b)
