"""A training step of a whole network, compiled as `train.py` compiles it, and what it computed."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnn
from jaxcnn import ops
from jaxcnn.runtime import compilation
from jaxcnn.training.optim import losses
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import make_train_step

# Its state after a step is the gradient.
KEEP_GRADIENT = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradient, state, params=None: (jax.tree.map(jnp.zeros_like, gradient), gradient),
)


def float64():
    """`jax.enable_x64`, which jax 0.7 has elsewhere."""
    here = jax if hasattr(jax, "enable_x64") else jax.experimental
    return here.enable_x64(True)


def precision(dtype):
    """What has to be in force for arrays of this type."""
    return float64() if dtype == np.float64 else contextlib.nullcontext()


def as_type(tree, dtype):
    """Every array of a tree in this type."""
    return jax.tree.map(lambda a: np.asarray(a, dtype), tree)


def _leave_dropout_out(method, args, kwargs, context):
    """For `nn.intercept_methods`: the heads' dropout, too, which no option of the network sets."""
    return args[0] if isinstance(context.module, nn.Dropout) else method(*args, **kwargs)


class ImagesAsParameters:
    """A network whose images are the parameter `images`, so that their gradient is computed too.

    It has no dropout: under x64, JAX draws other masks.
    """

    def __init__(self, network):
        self.network = network

    def apply(self, variables, unused, **options):
        params = dict(variables["params"])
        images = params.pop("images")
        with nn.intercept_methods(_leave_dropout_out):
            return self.network.apply({**variables, "params": params}, images, **options)


def build(name, dtype, **options):
    """The network without dropout."""
    model = jaxcnn.create_model(name, dtype=dtype, **options)
    return model.clone(dropout=0.0) if hasattr(model, "dropout") else model


def compiled_step(model, aux_weight=0.0, compiler=compilation.jit):
    """`step(variables, images, labels)` to loss, gradients, images' gradient and statistics."""
    step = compiler(make_train_step(
        ImagesAsParameters(model), KEEP_GRADIENT, losses.cross_entropy, aux_weight=aux_weight
    ))  # fmt: skip

    def run(variables, images, labels):
        params = {**variables["params"], "images": images}
        state = TrainState(
            step=np.int32(0), params=params, batch_stats=variables.get("batch_stats", {}),
            opt_state=jax.tree.map(np.zeros_like, params),
        )  # fmt: skip
        batch = {"image": images, "label": labels}
        state, metrics = jax.device_get(step(state, batch, jax.random.key(0)))
        gradients = dict(state.opt_state)
        total, count = metrics["loss"]
        return {
            "loss": total / count,
            "images": gradients.pop("images"),
            "gradients": gradients,
            "statistics": state.batch_stats,
        }

    return run


def step_of(name, variables, images, labels, *, dtype, mode="platform", **options):
    """What one step computes in `dtype` with the implementations of `mode`.

    The reference's program is compiled in a hurry, the platform's as `train.py` does.
    """
    model = build(name, dtype, **options)
    aux = {key for key in variables["params"] if key.startswith("aux")}
    with precision(dtype), ops.use(mode):
        compiler = compilation.compile_init if mode == "reference" else compilation.jit
        run = compiled_step(model, 0.3 if aux else 0.0, compiler)
        return run(*as_type((variables, images), dtype), labels)


def distances(found, wanted, live=1e-4):
    """Norm of the difference over the norm, of each tensor: {path: distance}.

    Gradients of at most `live` of the largest parameter's are left out: a bias in front of
    BatchNorm has none but rounding.
    """
    norm = functools.partial(_norm, np.float64)
    largest = max(map(norm, jax.tree.leaves(wanted["gradients"])))
    result = {}
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.startswith("gradients/") and norm(b) <= live * largest:
            continue
        result[name] = norm(np.float64(a) - np.float64(b)) / norm(b)
    return result


def whole_distance(found, wanted):
    """Norm of the difference over the norm, of the gradients of all parameters together."""
    pairs = zip(*(jax.tree.leaves(step["gradients"]) for step in (found, wanted)), strict=True)
    norms = [(_norm(np.float64, np.float64(a) - b), _norm(np.float64, b)) for a, b in pairs]
    difference, norm = np.linalg.norm(norms, axis=0)
    return difference / norm


def _norm(dtype, a):
    return float(np.linalg.norm(np.ravel(np.asarray(a, dtype))))
