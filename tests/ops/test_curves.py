"""Ten steps of training with the platform's implementations and with the reference."""

import jax
import numpy as np
import optax
import pytest
from drawing import draw_variables

import jaxcnn
from jaxcnn import ops
from jaxcnn.runtime import compilation
from jaxcnn.training.optim import losses
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import make_train_step

pytestmark = pytest.mark.optimized


def curve(model, images, labels, mode, batch=16, steps=10):
    """The losses of the first steps, f64[steps]."""
    optimizer = optax.sgd(0.02, momentum=0.9)
    variables = draw_variables(model, (batch, *images.shape[1:]))
    state = TrainState(
        step=np.int32(0), params=variables["params"], batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
    )  # fmt: skip
    found = []
    with ops.use(mode):
        step = compilation.jit(make_train_step(model, optimizer, losses.cross_entropy))
        for i in range(steps):
            part = np.arange(i * batch, (i + 1) * batch) % len(images)
            batch_of_step = {"image": images[part], "label": labels[part]}
            state, metrics = step(state, batch_of_step, jax.random.key(0))
            total, count = metrics["loss"]
            found.append(float(total / count))
    return np.array(found)


def digits():
    """Handwritten digits, f32[N,28,28,1] and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.kron(found.images[:160] / 16, np.ones((1, 3, 3)))  # 24 x 24
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
    return images.astype(np.float32), found.target[:160].astype(np.int32)


def colored():
    """Patterns of ten classes in noise, f32[N,32,32,3]."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 160).astype(np.int32)
    patterns = np.kron(rng.standard_normal((10, 4, 4, 3)), np.ones((1, 8, 8, 1)))
    images = patterns[labels] + rng.standard_normal((160, 32, 32, 3))
    return images.astype(np.float32), labels


NARROW = {"widths": (8, 16, 16, 16, 16), "fc_width": 32, "min_size": 32, "dropout": 0.0}


@pytest.mark.parametrize("name, options, draw, limit", [
    ("lenet5_modern", {}, digits, 1e-4),
    ("vgg_a_bn", {**NARROW, "num_classes": 10}, colored, 1e-3),
])  # fmt: skip
def test_losses_of_ten_steps(name, options, draw, limit):
    model = jaxcnn.create_model(name, **options)
    images, labels = draw()
    found, wanted = (curve(model, images, labels, mode) for mode in ("platform", "reference"))
    print(
        f"{name}: {wanted[0]:.4f} to {wanted[-1]:.4f}, apart by {np.abs(found - wanted).max():.1e}"
    )
    assert wanted[-1] < wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=limit)
