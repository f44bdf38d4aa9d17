"""Combining the predictions of several networks: pure functions of probabilities f32[M,N,K].

There are M members, N examples and K classes. Every combination is f32[N,K], and each row is a
distribution. Learn weights on other examples than those for which an error is reported.

Sources: mean of the softmax outputs: Krizhevsky et al. 2012, Szegedy et al. 2014, He et al. 2015;
greedy selection: Caruana et al. 2004. The result tables of ILSVRC 2016 only name the sums weighted
by accuracy (Trimps-Soushen), reweighted by class and normalized by image (CU-DeepLink); the
definitions here are this project's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def mean(probabilities: Array) -> Array:
    """Averages the probabilities of the members.

    Args:
      probabilities: f32[M,N,K].

    Returns:
      f32[N,K].
    """
    return probabilities.mean(0)


def geometric(probabilities: Array) -> Array:
    """Computes the normalized geometric mean: the softmax of the members' mean logits.

    Args:
      probabilities: f32[M,N,K].

    Returns:
      f32[N,K].
    """
    tiny = jnp.finfo(probabilities.dtype).tiny
    return jax.nn.softmax(jnp.log(jnp.maximum(probabilities, tiny)).mean(0), -1)


def weighted(probabilities: Array, weights: Array) -> Array:
    """Computes the weighted mean of the probabilities, sum_m w_m P_m.

    Args:
      probabilities: f32[M,N,K].
      weights: f32[M], at least 0, with sum 1.

    Returns:
      f32[N,K].
    """
    weights = jnp.asarray(weights, probabilities.dtype)
    return jnp.tensordot(weights, probabilities, 1, precision="highest")


def normalized(probabilities: Array) -> Array:
    """Computes the softmax of the mean log-probabilities, standardized for each member and image.

    The log-probabilities of a member for an image are scaled to mean 0 and standard deviation 1, so
    that all members have the same influence, however confident they are.

    Args:
      probabilities: f32[M,N,K].

    Returns:
      f32[N,K].
    """
    tiny = jnp.finfo(probabilities.dtype).tiny
    logs = jnp.log(jnp.maximum(probabilities, tiny))
    logs -= logs.mean(-1, keepdims=True)
    spread = logs.std(-1, keepdims=True)
    return jax.nn.softmax((logs / jnp.where(spread > 0, spread, 1)).mean(0), -1)


def class_weighted(probabilities: Array, weights: Array) -> Array:
    """Computes the mean weighted by class, sum_m w_mc P_m(c), renormalized over the classes.

    Args:
      probabilities: f32[M,N,K].
      weights: f32[M,K].

    Returns:
      f32[N,K].
    """
    summed = (probabilities * weights[:, None]).sum(0)
    return summed / summed.sum(-1, keepdims=True)


def learn_weights(
    probabilities: Array, labels: Array, *, steps: int = 5000, gap: float = 1e-6
) -> np.ndarray:
    """Learns the weights that maximize the mean log-likelihood of the mixture.

    The likelihood is concave on the simplex, and expectation-maximization converges to its maximum.
    With r_mn = P_m(label) / mixture(label), the mean of r_m is at most 1 at the maximum, and equal
    to 1 where w_m > 0 (the Karush-Kuhn-Tucker conditions); max_m mean(r_m) - 1 bounds the remaining
    improvement.

    Args:
      probabilities: f32[M,N,K].
      labels: i32[N].
      steps: maximum number of iterations.
      gap: bound of the remaining improvement at which to stop.

    Returns:
      Weights f64[M], at least 0, with sum 1.
    """
    rows = np.arange(len(labels))
    likelihoods = np.asarray(probabilities, np.float64)[:, rows, np.asarray(labels)]
    likelihoods = np.maximum(likelihoods, np.finfo(np.float32).tiny)
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(steps):
        gain = (likelihoods / (weights @ likelihoods)).mean(1)
        if gain.max() - 1 <= gap:
            break
        weights = weights * gain
    return weights / weights.sum()


def learn_accuracies(probabilities: Array, labels: Array) -> np.ndarray:
    """Computes weights in proportion to the members' accuracies.

    Args:
      probabilities: f32[M,N,K].
      labels: i32[N].

    Returns:
      Weights f64[M] with sum 1; equal weights if all accuracies are 0.
    """
    hits = (np.asarray(probabilities).argmax(-1) == np.asarray(labels)).mean(1)
    return hits / hits.sum() if hits.any() else np.full(len(hits), 1 / len(hits))


def learn_class_weights(probabilities: Array, labels: Array, *, shrink: float = 50.0) -> np.ndarray:
    """Computes weights by class from each member's accuracy on the class.

    The accuracy on a class is shrunk toward the member's overall accuracy: (hits_c + shrink *
    accuracy) / (n_c + shrink).

    Args:
      probabilities: f32[M,N,K].
      labels: i32[N].
      shrink: number of examples that the overall accuracy counts for.

    Returns:
      Weights f64[M,K]; those of each class have sum 1.
    """
    members, truth = np.asarray(probabilities), np.asarray(labels)
    hits, classes = members.argmax(-1) == truth, members.shape[-1]
    count = np.bincount(truth, minlength=classes)
    by_class = np.stack([np.bincount(truth, h, minlength=classes) for h in hits])
    accuracy = (by_class + shrink * hits.mean(1, keepdims=True)) / (count + shrink)
    total = accuracy.sum(0, keepdims=True)
    return np.where(total > 0, accuracy / np.where(total > 0, total, 1), 1 / len(hits))


def select_greedily(probabilities: Array, labels: Array, *, rounds: int = 20) -> np.ndarray:
    """Selects members greedily with replacement (Caruana et al. 2004).

    Each round adds the member that gives the mean the lowest top-1 error, and among equals the
    lowest log-loss. The best round is returned.

    Args:
      probabilities: f32[M,N,K].
      labels: i32[N].
      rounds: number of rounds.

    Returns:
      Weights f64[M] with sum 1, in proportion to how often each member was selected.
    """
    members, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    rows, counts = np.arange(len(truth)), np.zeros(len(members))
    total = np.zeros(members.shape[1:])
    best: tuple[tuple[float, float], np.ndarray] | None = None
    for size in range(1, rounds + 1):
        scores = []
        for member in members:
            mixed = (total + member) / size
            loss = -np.log(np.maximum(mixed[rows, truth], 1e-300)).mean()
            scores.append((float((mixed.argmax(-1) != truth).mean()), float(loss)))
        chosen = min(range(len(members)), key=scores.__getitem__)
        total, counts[chosen] = total + members[chosen], counts[chosen] + 1
        if best is None or scores[chosen] < best[0]:
            best = scores[chosen], counts / counts.sum()
    assert best is not None
    return best[1]
