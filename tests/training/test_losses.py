import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.training.optim import losses

RNG = np.random.default_rng(0)
LOGITS = 5 * RNG.standard_normal((6, 7))
LABELS = RNG.integers(0, 7, 6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_the_sum_over_the_smoothed_target(smoothing):
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    target = (1 - smoothing) * np.eye(7)[LABELS] + smoothing / 7
    expected = -(target * np.log(p)).sum(-1)
    found = losses.cross_entropy(jnp.float32(LOGITS), jnp.int32(LABELS), label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_huge_logits_and_low_precision():
    logits = jnp.asarray([[1e4, 0.0], [0.0, 1e4]], jnp.bfloat16)
    found = losses.cross_entropy(logits, jnp.int32([0, 0]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0, float(logits[1, 1])], rtol=1e-6)


def test_label_out_of_range_is_not_a_number():
    found = losses.cross_entropy(jnp.zeros((3, 4)), jnp.int32([-1, 4, 3]))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing is {smoothing}"):
        losses.cross_entropy(jnp.zeros((1, 2)), jnp.int32([0]), label_smoothing=smoothing)


def soft(rows=6):
    shares = RNG.random((rows, 7))
    return shares / shares.sum(-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets(smoothing):
    target = soft()
    expected = -((1 - smoothing) * target + smoothing / 7) * np.log(
        np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    )
    found = losses.cross_entropy(
        jnp.float32(LOGITS), jnp.float32(target), label_smoothing=smoothing
    )
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-5)
    one_hot = jnp.eye(7)[LABELS]
    for loss in (losses.cross_entropy, losses.binary_cross_entropy):
        found = [loss(jnp.float32(LOGITS), t, label_smoothing=smoothing) for t in (one_hot, LABELS)]
        np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("smoothing, threshold", [(0.0, None), (0.1, None), (0.1, 0.2)])
def test_binary_cross_entropy_is_the_mean_over_the_classes(smoothing, threshold):
    target = (1 - smoothing) * soft() + smoothing / 7
    if threshold is not None:
        target = np.float64(target > threshold)
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(-1)
    given = (target - smoothing / 7) / (1 - smoothing) if threshold is None else target
    found = losses.binary_cross_entropy(
        jnp.float32(LOGITS), jnp.float32(given), label_smoothing=smoothing, threshold=threshold
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_binary_cross_entropy_of_huge_logits_and_bad_values():
    huge = jnp.float32([[1e4, -1e4]])
    np.testing.assert_allclose(losses.binary_cross_entropy(huge, jnp.int32([0])), [0.0])
    np.testing.assert_allclose(losses.binary_cross_entropy(huge, jnp.int32([1])), [1e4])
    outside = losses.binary_cross_entropy(huge, jnp.int32([2]), threshold=0.5)
    assert np.all(np.isnan(outside))
    with pytest.raises(ValueError, match="threshold is 1"):
        losses.binary_cross_entropy(huge, jnp.int32([0]), threshold=1)


@pytest.mark.parametrize("x", [10.0, 16.0, 30.0])
def test_binary_cross_entropy_of_confident_logits_keeps_its_digits(x):
    """Of one class that is present, and another with the opposite logit that is absent."""

    def loss(x):
        return losses.binary_cross_entropy(jnp.stack([x, -x])[None], jnp.int32([0]))[0]

    value, slope = jax.value_and_grad(loss)(jnp.float32(x))
    np.testing.assert_allclose(value, np.log1p(np.exp(-x)), rtol=1e-5)
    np.testing.assert_allclose(slope, -1 / (1 + np.exp(x)), rtol=1e-5)


def test_losses_by_name():
    logits, labels = jnp.float32(LOGITS), jnp.int32(LABELS)
    smoothed = losses.make_loss("cross_entropy", label_smoothing=0.1)
    np.testing.assert_array_equal(
        smoothed(logits, labels), losses.cross_entropy(logits, labels, label_smoothing=0.1)
    )
    own = LOGITS[np.arange(6), LABELS]
    np.testing.assert_allclose(losses.make_loss("lenet_mse")(logits, labels), -own, rtol=1e-6)
    expected = -own + np.log(np.exp(-0.5) + np.exp(LOGITS).sum(-1))
    found = losses.make_loss("lenet_map", j=0.5)(logits, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bad_requests_are_found_when_the_loss_is_made():
    with pytest.raises(
        ValueError, match=r"loss\.name is 'crossentropy'; did you mean 'cross_entro"
    ):
        losses.make_loss("crossentropy")
    with pytest.raises(ValueError, match="unknown option 'smoothing' of loss 'cross_entropy'"):
        losses.make_loss("cross_entropy", smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing is 2"):
        losses.make_loss("cross_entropy", label_smoothing=2)


def test_a_loss_without_soft_targets_is_refused_for_mixup():
    with pytest.raises(ValueError, match="'lenet_mse' does not take the soft targets"):
        losses.make_loss("lenet_mse", 10, True)
    losses.make_loss("cross_entropy", 10, True)
