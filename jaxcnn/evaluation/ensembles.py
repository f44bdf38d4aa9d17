"""Combining the answers of several networks: pure functions of probabilities f32[M,N,K].

M members, N examples, K classes; every result is f32[N,K], each row a distribution. Weights that
are learnt must be learnt on examples other than those an error is reported for.

Sources: mean of softmax: Krizhevsky et al. 2012, Szegedy et al. 2014, He et al. 2015; greedy
selection: Caruana et al. 2004. Sums weighted by accuracy (Trimps-Soushen), reweighted by class and
normalised by image (CU-DeepLink) are known from the ILSVRC 2016 result tables by name only; what is
computed here is this project's definition.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def mean(probabilities: Array) -> Array:
    """Arithmetic mean."""
    return probabilities.mean(0)


def geometric(probabilities: Array) -> Array:
    """Softmax of the mean log-probability, which is the softmax of the mean of the logits."""
    tiny = jnp.finfo(probabilities.dtype).tiny
    return jax.nn.softmax(jnp.log(jnp.maximum(probabilities, tiny)).mean(0), -1)


def weighted(probabilities: Array, weights: Array) -> Array:
    """sum_m w_m P_m, for w f32[M] on the simplex."""
    return jnp.einsum("m,mnk->nk", jnp.asarray(weights, probabilities.dtype), probabilities)


def normalised(probabilities: Array) -> Array:
    """Softmax of the mean of the log-probabilities, each row of a member scaled to mean 0, std 1.

    All members then speak equally loudly about an image, however sure they are.
    """
    tiny = jnp.finfo(probabilities.dtype).tiny
    logs = jnp.log(jnp.maximum(probabilities, tiny))
    logs -= logs.mean(-1, keepdims=True)
    spread = logs.std(-1, keepdims=True)
    return jax.nn.softmax((logs / jnp.where(spread > 0, spread, 1)).mean(0), -1)


def class_weighted(probabilities: Array, weights: Array) -> Array:
    """sum_m w_mc P_m(c), renormalised over the classes; w f32[M,K]."""
    summed = (probabilities * weights[:, None]).sum(0)
    return summed / summed.sum(-1, keepdims=True)


def learn_weights(
    probabilities: Array, labels: Array, *, steps: int = 5000, gap: float = 1e-6
) -> np.ndarray:
    """The weights f64[M] that maximise the mixture's mean log-likelihood on labels i32[N].

    The likelihood is concave on the simplex; expectation-maximisation climbs to its maximum. With
    r_mn = P_m(label) / mixture(label) the mean of r_m is at most 1 there, and 1 where w_m > 0
    (the Karush-Kuhn-Tucker conditions); max_m mean(r_m) - 1 bounds what is still to be gained, and
    at `gap` it is done, or after so many steps.

    Raises:
      ValueError: all members give some example's label probability 0.
    """
    rows = np.arange(len(labels))
    own = np.asarray(probabilities, np.float64)[:, rows, np.asarray(labels)]
    own = np.maximum(own, np.finfo(np.float32).tiny)
    weights = np.full(len(own), 1 / len(own))
    for _ in range(steps):
        gain = (own / (weights @ own)).mean(1)
        if gain.max() - 1 <= gap:
            break
        weights = weights * gain
    return weights / weights.sum()


def learn_accuracies(probabilities: Array, labels: Array) -> np.ndarray:
    """Weights f64[M] in proportion to the members' accuracies; equal ones if all are 0."""
    hits = (np.asarray(probabilities).argmax(-1) == np.asarray(labels)).mean(1)
    return hits / hits.sum() if hits.any() else np.full(len(hits), 1 / len(hits))


def learn_class_weights(probabilities: Array, labels: Array, *, shrink: float = 50.0) -> np.ndarray:
    """Weights f64[M,K]: each member's accuracy by class, shrunk towards its accuracy over all.

    (hits_c + shrink * accuracy) / (n_c + shrink), scaled so that a class's weights add up to 1.
    """
    given, truth = np.asarray(probabilities), np.asarray(labels)
    hits, classes = given.argmax(-1) == truth, given.shape[-1]
    count = np.bincount(truth, minlength=classes)
    by_class = np.stack([np.bincount(truth, h, minlength=classes) for h in hits])
    found = (by_class + shrink * hits.mean(1, keepdims=True)) / (count + shrink)
    total = found.sum(0, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), 1 / len(hits))


def select_greedily(probabilities: Array, labels: Array, *, rounds: int = 20) -> np.ndarray:
    """Weights f64[M] of greedy selection with replacement.

    Each round adds the member that makes the mean's top-1 error least, of equals the one that
    makes its log-loss least; the best of all rounds is returned, as shares of how often each member
    was taken.
    """
    given, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    rows, taken = np.arange(len(truth)), np.zeros(len(given))
    summed = np.zeros(given.shape[1:])
    best: tuple[tuple[float, float], np.ndarray] | None = None
    for done in range(1, rounds + 1):
        scores = []
        for one in given:
            mixed = (summed + one) / done
            loss = -np.log(np.maximum(mixed[rows, truth], 1e-300)).mean()
            scores.append((float((mixed.argmax(-1) != truth).mean()), float(loss)))
        chosen = min(range(len(given)), key=scores.__getitem__)
        summed, taken[chosen] = summed + given[chosen], taken[chosen] + 1
        if best is None or scores[chosen] < best[0]:
            best = scores[chosen], taken / taken.sum()
    assert best is not None
    return best[1]
