"""Every transformation of JAX on networks of seven families, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from jax import export
from whole_step import build, float64

from jaxcnn import ops
from jaxcnn.runtime import compilation

CLOSE = 1e-9  # norm of the difference over the norm, in float64

# Small and of smooth derivatives where it can be: id, size, options.
NETWORKS = {
    "lenet5_modern": (28, {}),
    "alexnet_2gpu": (224, {"widths": (4, 8, 8, 8, 8), "fc_width": 16, "num_classes": 5}),
    "googlenet": (32, {"num_classes": 5}),
    "resnet20_cifar": (8, {"blocks": (1, 1, 1), "width": 4, "stem": (4,)}),
    "resnext29_8x64d_cifar": (8, {"blocks": (1, 1, 1), "width": 8, "stem": (8,), "groups": 4}),
    "se_resnet18": (32, {"blocks": (1, 1, 1, 1), "width": 8, "stem": (8,), "se_reduction": 4}),
    "dpn68": (48, {"blocks": (1, 1, 1, 1), "num_classes": 5}),
}
BATCH = 2


@functools.cache
def network(name):
    """(model in float64, variables f64, images f64[2,H,W,C])."""
    size, options = NETWORKS[name]
    model = build(name, np.float64, **options)
    shape = (BATCH, size, size, model.channels)
    to64 = functools.partial(jax.tree.map, lambda a: np.asarray(a, np.float64))
    variables = draw_variables(model.clone(dtype=np.float32), shape)
    return model, to64(variables), to64(draw_images(shape))


def functions(name):
    """`logits(params, images)` and `loss(params, images)` in training mode, parameters, images."""
    model, variables, images = network(name)
    statistics = {k: v for k, v in variables.items() if k != "params"}

    def logits(params, images):
        variables = {"params": params, **statistics}
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    def loss(params, images):
        return -jax.nn.log_softmax(logits(params, images))[:, 1].mean()

    return logits, loss, variables["params"], images


def direction(tree, seed=3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape) * jnp.abs(a).mean(), tree)


def one_scale(params):
    """The path of the smallest scale, or where there is none of the first convolution's bias."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    scales = [leaf for leaf in leaves if leaf[0][-1].key == "scale"]
    biases = [leaf for leaf in leaves if leaf[0][0].key == "conv1" and leaf[0][-1].key == "bias"]
    return min(scales or biases, key=lambda leaf: leaf[1].size)[0]


def with_leaf(params, path, value):
    return jax.tree_util.tree_map_with_path(lambda p, a: value if p == path else a, params)


def leaf(params, path):
    return dict(jax.tree_util.tree_leaves_with_path(params))[path]


# --- the transformations: (logits, loss, params, images) to what is compared ----------------------


def of_jvp(logits, loss, params, images):
    tangents = direction(params), direction(images)
    return jax.jvp(logits, (params, images), tangents)


def of_linearize(logits, loss, params, images):
    y, push = jax.linearize(lambda params: logits(params, images), params)
    return y, push(direction(params)), push(direction(params, 4))


def forward_over_reverse(logits, loss, params, images):
    return jax.jvp(lambda p: jax.grad(loss)(p, images), (params,), (direction(params),))[1]


def reverse_over_reverse(logits, loss, params, images):
    along = direction(params)

    def slope(params):
        gradient = jax.grad(loss)(params, images)
        return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, along))))

    return jax.grad(slope)(params)


def jacfwd_by_ten_inputs(logits, loss, params, images):
    def of_pixels(values):
        at = np.arange(10) * (images.size // 10)
        return logits(params, jnp.ravel(images).at[at].add(values).reshape(images.shape))

    return jax.jacfwd(of_pixels)(jnp.zeros(10))


def hessian_by_one_scale(logits, loss, params, images):
    path = one_scale(params)

    def of_scale(value):
        return loss(with_leaf(params, path, value), images)

    return jax.hessian(of_scale)(jnp.asarray(leaf(params, path)))


def vmap_over_parameters(logits, loss, params, images):
    several = jax.tree.map(lambda a, b: jnp.stack([a, a + 0.1 * b]), params, direction(params))
    return jax.vmap(jax.value_and_grad(loss), (0, None))(several, images)


def vmap_over_images(logits, loss, params, images):
    several = jnp.stack([images, 0.5 * images[::-1]])
    return jax.vmap(jax.value_and_grad(loss, 1), (None, 0))(params, several)


def per_example_gradients(logits, loss, params, images):
    return jax.vmap(lambda image: jax.grad(loss)(params, image[None]))(images)


def of_remat(logits, loss, params, images):
    return jax.grad(jax.checkpoint(loss), (0, 1))(params, images)


TRANSFORMATIONS = (
    of_jvp,
    of_linearize,
    forward_over_reverse,
    reverse_over_reverse,
    jacfwd_by_ten_inputs,
    hessian_by_one_scale,
    vmap_over_parameters,
    vmap_over_images,
    per_example_gradients,
    of_remat,
)
WHOLE = ("lenet5_modern",)
QUICK = {
    ("resnet20_cifar", of_jvp),
    ("resnet20_cifar", forward_over_reverse),
    ("resnet20_cifar", hessian_by_one_scale),
    ("resnet20_cifar", vmap_over_parameters),
    ("resnet20_cifar", of_remat),
    ("alexnet_2gpu", of_jvp),
    ("se_resnet18", per_example_gradients),
}


def cases():
    for name in NETWORKS:
        for transformation in TRANSFORMATIONS:
            quick = name in WHOLE or (name, transformation) in QUICK
            marks = [] if quick else [pytest.mark.slow]
            yield pytest.param(
                name, transformation, id=f"{name}-{transformation.__name__}", marks=marks
            )


@pytest.mark.parametrize("name, transformation", list(cases()))
def test_transformation(name, transformation):
    logits, loss, params, images = functions(name)
    results = []
    with float64():
        for mode in ("platform", "reference"):
            with ops.use(mode):
                run = jax.jit(
                    functools.partial(transformation, logits, loss),
                    compiler_options=compilation.accepted(compilation.CPU_INIT),
                )
                results.append(jax.device_get(run(params, images)))
    found, wanted = results
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    total, apart = (
        np.sqrt(sum(float(np.sum(np.square(a))) for a in jax.tree.leaves(tree)))
        for tree in (wanted, jax.tree.map(np.subtract, found, wanted))
    )
    print(f"{name}, {transformation.__name__}: {apart / total:.1e}")
    assert total > 0 and apart <= CLOSE * total


@pytest.mark.parametrize(
    "name",
    [
        n if n in (*WHOLE, "resnet20_cifar") else pytest.param(n, marks=pytest.mark.slow)
        for n in NETWORKS
    ],
)
def test_export_for_three_platforms_with_a_symbolic_batch(name):
    """Serialized, read again, and called here with another batch."""
    pytest.importorskip("flatbuffers")
    _, variables, images = network(name)
    size, options = NETWORKS[name]
    model = build(name, np.float32, **options)
    variables, images = jax.tree.map(np.float32, (variables, images))
    shape = export.symbolic_shape(f"n, {size}, {size}, {model.channels}")
    of_images = jax.ShapeDtypeStruct(shape, jnp.float32)
    exported = export.export(jax.jit(model.apply), platforms=("cpu", "cuda", "tpu"))(
        jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), variables), of_images
    )
    again = export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    with ops.use("reference"):
        wanted = jax.jit(lambda *args: model.apply(*args))(variables, images)
    np.testing.assert_allclose(again.call(variables, images), wanted, rtol=1e-4, atol=1e-5)


def test_export_of_a_training_step_with_a_symbolic_batch():
    pytest.importorskip("flatbuffers")
    norm = ops.BatchNormAct(use_running_average=False)
    images = draw_images((4, 6, 6, 3))
    variables = norm.init(jax.random.key(0), images)

    def gradient(variables, images):
        def loss(variables):
            y, _ = norm.apply(variables, ops.conv(images, kernel), mutable=["batch_stats"])
            return jnp.sin(ops.max_pool(y, 2, 2)).sum()

        return jax.grad(loss)(variables)["params"]

    kernel = draw_images((3, 3, 3, 3), seed=1)
    symbolic = jax.ShapeDtypeStruct(export.symbolic_shape("n, 6, 6, 3"), jnp.float32)
    compiled = jax.jit(gradient)
    exported = export.export(compiled, platforms=("cpu", "cuda", "tpu"))(variables, symbolic)
    found, wanted = exported.call(variables, images), compiled(variables, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)
