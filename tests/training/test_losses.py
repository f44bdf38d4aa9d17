import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.training import losses

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
    with pytest.raises(ValueError, match="unknown loss 'crossentropy'; did you mean 'cross_entro"):
        losses.make_loss("crossentropy")
    with pytest.raises(ValueError, match="unknown option 'smoothing' of loss 'cross_entropy'"):
        losses.make_loss("cross_entropy", smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing is 2"):
        losses.make_loss("cross_entropy", label_smoothing=2)
