import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import metrics
from jaxcnn.evaluation import tables

# Six classes: the label's rank, counted from 0, is 0, 1, 4, 5.
LOGITS = jnp.float32(
    [[9, 1, 2, 3, 4, 5], [7, 8, 1, 2, 3, 4], [2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 6]]
)
LABELS = jnp.int32([0, 0, 0, 0])
LOSSES = jnp.float32([0.5, 1.5, 2.5, 3.5])


def test_pairs_by_hand():
    found = metrics.classification_pairs(LOGITS, LABELS, LOSSES)
    assert found == {"loss": (8.0, 4), "top1_error": (3.0, 4), "top5_error": (1.0, 4)}


def test_padding_is_not_counted_even_if_it_is_broken():
    mask = jnp.float32([1, 0, 1, 0])
    logits, losses = LOGITS.at[1].set(jnp.nan), LOSSES.at[1].set(jnp.nan)
    found = metrics.classification_pairs(logits, LABELS, losses, mask)
    assert found == {"loss": (3.0, 2), "top1_error": (1.0, 2), "top5_error": (0.0, 2)}


def test_nothing_but_padding():
    found = metrics.classification_pairs(LOGITS, LABELS, LOSSES, jnp.zeros(4))
    assert all(pair == (0.0, 0.0) for pair in found.values())


def test_ties_go_to_the_lower_class():
    assert metrics.top_k_error(jnp.zeros((3, 3)), jnp.int32([0, 1, 2]), 1).tolist() == [0, 1, 1]
    assert metrics.top_k_error(jnp.zeros((3, 3)), jnp.int32([0, 1, 2]), 2).tolist() == [0, 0, 1]


@pytest.mark.parametrize("k", [1, 5])
def test_a_broken_network_is_never_right(k):
    own = LOGITS.at[:, 0].set(jnp.nan)
    others = LOGITS.at[:, 1:].set(jnp.nan)
    everything = LOGITS * jnp.nan
    for logits in (own, others, everything):
        assert metrics.top_k_error(logits, LABELS, k).tolist() == [1, 1, 1, 1]
        values = tables.row("network", np.asarray(logits), np.asarray(LABELS))
        assert values["calibration_error"] is None
        assert tables.text([values]).split()[-1] == "-"


def test_a_broken_network_of_few_classes_is_never_right():
    assert metrics.top_k_error(jnp.full((2, 3), jnp.nan), jnp.int32([0, 2]), 5).tolist() == [1, 1]
    assert metrics.top_k_error(jnp.zeros((2, 3)), jnp.int32([0, 3]), 5).tolist() == [0, 1]


def test_ranks_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 6, (200, 10)).astype(np.float32)  # many ties
    labels = rng.integers(0, 10, 200)
    first = np.argsort(-logits, axis=-1, kind="stable")
    for k in (1, 3, 5):
        expected = 1.0 - (first[:, :k] == labels[:, None]).any(-1)
        found = metrics.top_k_error(jnp.asarray(logits), jnp.asarray(labels, jnp.int32), k)
        np.testing.assert_array_equal(found, expected)


def test_shares_combine_to_the_whole():
    parts = [
        metrics.classification_pairs(LOGITS[s], LABELS[s], LOSSES[s])
        for s in (slice(3), slice(3, 4))
    ]
    found = metrics.finalize(metrics.combine(parts), expected=4)
    assert found == {"loss": 2.0, "top1_error": 0.75, "top5_error": 0.25}
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *parts)
    assert metrics.combine([stacked]) == metrics.combine(parts)


def test_sums_on_the_host_do_not_lose_small_shares():
    big, small = {"loss": (2.0**24, 2.0**24)}, {"loss": (1.0, 1.0)}
    pairs = [{k: tuple(map(jnp.float32, v)) for k, v in p.items()} for p in (big, small, small)]
    assert metrics.combine(pairs)["loss"] == (2.0**24 + 2, 2.0**24 + 2)


def test_wrong_counts_are_errors():
    with pytest.raises(ValueError, match="loss counted 1792 of 1797 examples"):
        metrics.finalize({"loss": (1.0, 1792.0)}, expected=1797)
    with pytest.raises(ValueError, match="loss counted no example"):
        metrics.finalize({"loss": (0.0, 0.0)})
