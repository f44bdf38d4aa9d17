"""Weights of other frameworks: the network that is read computes what the file's network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign_files import caffe
from foreign_nets import ALEXNET, PREACT, RESNET, alexnet, preact, resnet

import jaxcnn
from jaxcnn.weights import loading


def images(size, channels=3):
    return np.random.default_rng(1).standard_normal((2, size, size, channels)).astype(np.float32)


def assert_same(net, outputs, path, model, bgr=False, **options):
    """Whether a file's network and the one that is read from it compute the same; returns it."""
    opened = loading.open_weights(path, model, options=options)
    network, variables = loading.build(opened, **options)
    x = images(net.size)
    got = jax.jit(network.apply)(variables, x)
    channels_first = (x[..., ::-1] if bgr else x).transpose(0, 3, 1, 2)
    (wanted,) = jax.jit(lambda x: net.outputs(x, *outputs))(jnp.asarray(channels_first))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 2e-5 * np.abs(wanted).max()
    return opened


# --- Caffe --------------------------------------------------------------------------------------


def test_caffe_resnet_with_biases_before_its_normalizations(tmp_path):
    net, outputs = resnet(bias=True, epsilon=2e-5)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, mean=(1.0, 2.0, 3.0), scale=0.5))
    opened = assert_same(net, outputs, path, "resnet50_v1", bgr=True, **RESNET)
    assert opened.options["bn_epsilon"] == 2e-5
    how = opened.preprocessing
    np.testing.assert_allclose(how.mean, np.array([3, 2, 1]) / 255)
    np.testing.assert_allclose(how.std, [2 / 255] * 3)
    assert how.size == 64


def test_caffe_by_the_numbers_of_its_first_layers(tmp_path):
    net, outputs = alexnet(pool_first=True)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, old=True))
    opened = assert_same(net, outputs, path, "alexnet_caffenet", bgr=True, **ALEXNET)
    assert not {"lrn", "pool_first"} & opened.options.keys()
    opened = loading.open_weights(path, "alexnet", options=ALEXNET)
    assert (opened.options["lrn"], opened.options["pool_first"]) == ("caffe", True)


def test_caffe_gates(tmp_path):
    net, outputs = resnet(se=True)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net))
    assert_same(net, outputs, path, "se_resnet50", bgr=True, se_reduction=16, **RESNET)


# --- ONNX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [False, True])
def test_onnx_in_the_order_of_pytorch(tmp_path, fold):
    pytest.importorskip("onnx")
    from foreign_files import onnx

    net, outputs = resnet(stride_on="3x3", shortcut_last=True)
    path = tmp_path / "net.onnx"
    model = onnx(net, outputs, fold)
    path.write_bytes(model.SerializeToString())
    opened = assert_same(net, outputs, path, "resnet50", **RESNET)
    assert opened.options["ceil_pool"] is True  # as the file has it
    from onnx.reference import ReferenceEvaluator

    x = images(net.size)
    (wanted,) = ReferenceEvaluator(model).run(None, {"data": x.transpose(0, 3, 1, 2)})
    (got,) = net.outputs(x.transpose(0, 3, 1, 2), *outputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_onnx_of_preactivation(tmp_path):
    pytest.importorskip("onnx")
    from foreign_files import onnx

    net, outputs = preact()
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    assert_same(net, outputs, path, "resnet50_v2", **PREACT)


def test_onnx_dense_layers_after_a_map(tmp_path):
    pytest.importorskip("onnx")
    assert jaxcnn
