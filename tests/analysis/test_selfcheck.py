"""Every kind of layer is found right, and one mistake at a time is found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import old_pooling
import pytest

from jaxcnn import layers
from jaxcnn.analysis import selfcheck
from jaxcnn.analysis.layer_kinds import BFLOAT16, KINDS, Operation
from jaxcnn.cli import main
from jaxcnn.ops import BatchNorm

pytestmark = pytest.mark.optimized

BY_NAME = {kind.name: kind for kind in KINDS}


def check(kind):
    (row,) = selfcheck.check([kind])
    return row


@pytest.mark.slow
def test_all_kinds_are_right(capsys):
    assert main(["selfcheck"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("  ok")] == lines[2 : 2 + len(KINDS)]
    assert lines[-1].endswith(f"all {len(KINDS)} kinds agree with float64 on the CPU")


@old_pooling.where_it_fails
def test_the_old_gradient_of_max_pooling_is_found(monkeypatch, capsys):
    """Alone it is right, and wrong where it is compiled together with what stands before it."""
    old_pooling.plant(monkeypatch)
    composed = "convolution, BatchNorm, ReLU, max pooling 2x2"
    monkeypatch.setattr(selfcheck, "KINDS", [BY_NAME[composed], BY_NAME["max pooling 2x2"]])
    assert main(["selfcheck"]) == 3
    _, _, wrong, right, _, summary = capsys.readouterr().out.splitlines()
    assert wrong.endswith("WRONG") and right.endswith("ok")
    loss, gradients, *_ = wrong.removeprefix(composed).split()
    print(wrong)
    assert float(loss) < 1e-6 and float(gradients) > 0.1
    assert "1 of 2 kinds are WRONG compared with float64 on the CPU. Do not train on" in summary


def to_last_maximum(x):
    return layers.max_pool(x[:, ::-1, ::-1], 2, 2)[:, ::-1, ::-1]


@jax.custom_jvp
def not_on_this_device(x):
    return x


@not_on_this_device.defjvp
def refused(values, tangents):
    def fail(x):
        raise RuntimeError("no such kernel")

    (x,), (tangent,) = values, tangents
    return jax.pure_callback(fail, jax.ShapeDtypeStruct(x.shape, x.dtype), x), tangent


@pytest.mark.parametrize(
    ("name", "layer", "sound"),
    [
        ("convolution 3x3", layers.conv(12, 3, 1, ((0, 2), (0, 2)), bias=True), ""),
        ("max pooling 2x2", Operation(to_last_maximum), "loss"),
        ("average pooling 3x3, padding not counted", Operation(
            lambda x: layers.avg_pool(x, 3, 1, 1, count_include_pad=True)), ""),
        ("BatchNorm", BatchNorm(use_running_average=False, momentum=0.99), "loss gradients"),
        ("cross-entropy", Operation(lambda x: x * jnp.inf), ""),
    ],
)  # fmt: skip
def test_a_mistake_is_found_where_it_is(name, layer, sound):
    row = check(dataclasses.replace(BY_NAME[name], layer=layer))
    assert not row.ok
    assert not np.max([row.loss, row.gradients, row.updated]) <= 2 * max(BFLOAT16)
    for part in ("loss", "gradients", "updated"):
        assert (getattr(row, part) <= row.tolerance) == (part in sound.split())


def test_a_step_that_the_device_refuses_is_wrong():
    kind = dataclasses.replace(BY_NAME["cross-entropy"], layer=Operation(not_on_this_device))
    row = check(kind)
    assert not row.ok and row.failed and np.isnan(row.loss)
    assert f"cross-entropy: {row.failed}" in selfcheck.to_text([row])
    assert "1 of 1 kinds are WRONG" in selfcheck.summary([row])
