"""Combinations by hand-made answers; learnt weights by the conditions of the optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.evaluation import ensembles


def draw(members=4, examples=200, classes=5):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    logits = rng.normal(size=(members, examples, classes))
    sharp = np.linspace(0.2, 2, members)[:, None, None]
    logits += sharp * np.eye(classes)[labels]
    return jax.nn.softmax(jnp.asarray(logits, jnp.float32), -1), labels


def test_geometric_mean_is_that_of_logits():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)), jnp.float32)
    found = ensembles.geometric(jax.nn.softmax(logits, -1))
    np.testing.assert_allclose(found, jax.nn.softmax(logits.mean(0), -1), rtol=1e-5)


def test_learnt_weights_fulfil_the_conditions_of_the_optimum():
    given, labels = draw()
    weights = ensembles.learn_weights(given, labels, steps=200_000, gap=1e-9)
    own = np.asarray(given, np.float64)[:, np.arange(len(labels)), labels]
    gain = (own / (weights @ own)).mean(1)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    assert gain.max() <= 1 + 1e-6
    np.testing.assert_allclose(gain[weights > 1e-3], 1, atol=1e-5)
    assert np.log(weights @ own).mean() > np.log(own.mean(0)).mean()


def test_an_example_that_nobody_holds_possible_says_nothing():
    given, labels = draw()
    more = np.concatenate([given, np.broadcast_to([0, 0, 0, 0, 1.0], (4, 1, 5))], 1)
    found = ensembles.learn_weights(more, np.append(labels, 0), gap=1e-9, steps=20_000)
    expected = ensembles.learn_weights(given, labels, gap=1e-9, steps=20_000)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_weights_by_accuracy():
    given = np.array([[[0.9, 0.1]] * 4, [[0.1, 0.9]] * 4])
    labels = np.array([0, 0, 0, 1])
    assert ensembles.learn_accuracies(given, labels).tolist() == [0.75, 0.25]
    assert ensembles.learn_accuracies(given[:1], np.ones(4, int)).tolist() == [1.0]


def test_normalized_members_speak_equally_loudly():
    """The ranks of a member alone stay; how sure it is does not matter beside another."""
    given, _ = draw()
    alone = ensembles.normalized(given[:1])
    np.testing.assert_array_equal(np.argsort(alone, -1), np.argsort(given[0], -1))
    np.testing.assert_allclose(alone.sum(-1), 1, rtol=1e-5)
    sharp = jax.nn.softmax(7 * jnp.log(given[1]), -1)
    mixed = ensembles.normalized(jnp.stack([given[0], sharp]))
    np.testing.assert_allclose(mixed, ensembles.normalized(given[:2]), rtol=1e-4)
    even = jnp.full((2, 1, 5), 0.2)
    np.testing.assert_allclose(ensembles.normalized(even), even[0], rtol=1e-6)


def test_weights_of_one_and_of_classes():
    given, labels = draw()
    np.testing.assert_allclose(ensembles.weighted(given, jnp.eye(4)[2]), given[2], rtol=1e-6)
    even = ensembles.class_weighted(given, jnp.full((4, 5), 0.25))
    np.testing.assert_allclose(even, ensembles.mean(given), rtol=1e-5)
    by_class = ensembles.learn_class_weights(given, labels, shrink=0)
    hits = (np.asarray(given).argmax(-1) == labels)[:, labels == 3].mean(1)
    np.testing.assert_allclose(by_class[:, 3], hits / hits.sum())


def test_greedy_selection_is_never_worse_than_the_best_member():
    given, labels = draw()
    weights = ensembles.select_greedily(given, labels)
    error = (np.asarray(ensembles.weighted(given, weights)).argmax(-1) != labels).mean()
    alone = (np.asarray(given).argmax(-1) != labels).mean(1)
    assert weights.sum() == pytest.approx(1) and error <= alone.min()
