"""ONNX models against the networks they were made from, in another runtime."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from test_all_models import NETWORKS, build

from jaxcnn import layers
from jaxcnn.data.augment.pipeline import normalize
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.deploy.programs import to_onnx
from jaxcnn.evaluation.evaluate import Entry

onnx = pytest.importorskip("onnx")
BY_PAPER = ("lenet5_1998", "alexnet_2gpu", "zfnet_512", "vgg_c_bn")


class Mixed(layers.Network):
    """Everything that the translation treats specially, in one small network."""

    num_classes: int = 5
    min_size: int = 8

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        conv, norm, norm_act = self.conv(), self.norm(train), self.norm_act(train)
        x = norm_act(name="bn1")(conv(8, 3, 2, ((0, 1), (1, 0)), name="conv1")(x))
        y = norm(name="bn2")(conv(8, 3, 1, 1, groups=4, name="conv2")(x))
        x = norm_act(name="bn3")(conv(8, 1, name="conv3")(x), y)  # the shortcut is a BatchNorm
        x = norm_act(name="bn4")(x + conv(8, (1, 3), 1, (0, 1), bias=True, name="conv4")(x))
        x = layers.local_response_norm(x, n=4, alpha=0.3)
        x = layers.max_pool(x, 3, 2, ceil_mode=True)
        x = jnp.concatenate([x, layers.avg_pool(x, 3, 1, 1)], -1)
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (2, 2)))[:, ::2]
        a, b, c = jnp.split(x, [6, 10], -1)
        x = jnp.concatenate([nn.tanh(c), a * nn.sigmoid(a), b**3 - 2 * b], -1)
        x = layers.SqueezeExcite(4, name="se")(x)
        shared = conv(6, 1, name="conv5")(x)  # read twice, so that its BatchNorm cannot be folded
        x = norm(name="bn5")(shared) + jnp.maximum(shared, 0.1)
        x = jnp.concatenate([x.reshape(x.shape[0], -1), layers.global_avg_pool(x)], -1)
        return self.logits(nn.relu(nn.Dense(7, name="fc1")(x)))


def entry_of(model, images, *, seed=0):
    _, size, _, channels = images.shape
    variables = draw_variables(model, (1, *images.shape[1:]), seed=seed)
    how = Preprocessing(size, 0.875, "bilinear", (0.4,) * channels, (0.3,) * channels)
    return Entry("drawn", lambda **more: model.clone(**more), variables, how, model.num_classes)


def evaluate(model, images):
    """The output of an ONNX model, by onnxruntime if it is installed, else by ONNX itself."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(model)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString())
    return functools.partial(run, session)(images)


def run(session, images):
    return session.run(None, {"images": np.asarray(images)})[0]


def compare(entry, images, model):
    network = entry.make()
    want = np.asarray(
        jax.jit(lambda v, x: network.apply(v, x, train=False))(entry.variables, images)
    )
    got = evaluate(model, images)
    assert got.shape == want.shape == (len(images), entry.classes)
    largest = np.abs(want).max()
    assert largest > 0 and np.abs(got - want).max() <= 1e-5 * largest


@pytest.fixture(scope="module")
def mixed():
    return entry_of(Mixed(), np.zeros((1, 12, 12, 3)))


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_every_operation_for_two_batch_sizes(mixed):
    model = to_onnx(mixed)
    for count in (1, 3):
        compare(mixed, draw_images((count, 12, 12, 3), seed=count), model)
    (images,), (logits,) = model.graph.input, model.graph.output
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (images, logits)
    ]
    assert (images.name, logits.name) == ("images", "logits")
    assert shapes == [["batch", 12, 12, 3], ["batch", 5]]


def test_batch_norm_is_folded():
    model, images = build("resnet20_cifar")
    found = kinds(to_onnx(entry_of(model, images)))
    blocks, convs = 3, 1 + 2 * 3  # the option-A shortcuts have no convolution
    assert found.count("Conv") == convs and found.count("Add") == blocks
    assert "Mul" not in found[: found.index("ReduceSum")] and found.count("Transpose") == 1


def test_pixels_to_probabilities(mixed):
    model = to_onnx(mixed, pixels=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    how, network = mixed.preprocessing, mixed.make()
    logits = network.apply(mixed.variables, normalize(images, how.mean, how.std), train=False)
    np.testing.assert_allclose(evaluate(model, images), jax.nn.softmax(logits, -1), atol=1e-6)


def test_an_operation_without_translation_is_named():
    class Sorting(Mixed):
        @nn.compact
        def __call__(self, images, *, train=False):
            return self.logits(jnp.sort(images.mean((1, 2)), -1))

    entry = entry_of(Sorting(), np.zeros((1, 12, 12, 3)))
    with pytest.raises(ValueError, match="operation 'sort', which has no translation to ONNX"):
        to_onnx(entry)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family(name):
    pytest.importorskip("onnxruntime")
    model, images = build(name, batch=2)
    entry = entry_of(model, images)
    compare(entry, images, to_onnx(entry))
