import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, SHAPE, Tiny, begin, draw_set, noisy

from jaxcnn import ops
from jaxcnn.training import state, step
from jaxcnn.training.input.preprocess import gather
from jaxcnn.training.optim import losses


def draw_batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.standard_normal((size, *SHAPE)).astype(np.float32),
        "label": rng.integers(0, CLASSES, size).astype(np.int32),
    }


KEY = jax.random.key(1)


def test_abstract_state_has_the_shapes_of_the_real_one():
    model = Tiny(aux_heads=True)
    optimizer, start = begin(model)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        start, state.abstract_state(model, optimizer, (1, *SHAPE))
    )
    assert set(start.params) == {"conv1", "bn1", "aux1_fc", "conv2", "bn2", "fc"}
    assert start.step == 0 and start.ema is None


def test_losses_fall_and_metrics_are_of_the_batch():
    optimizer, now = begin(Tiny(), rate=0.1)
    one = jax.jit(step.make_train_step(Tiny(), optimizer))
    batch, seen = draw_batch(), []
    for _ in range(20):
        now, metrics = one(now, batch, KEY)
        seen.append(metrics["loss"][0] / metrics["loss"][1])
    assert seen[-1] < 0.5 * seen[0]
    assert now.step == 20
    assert metrics["loss"][1] == metrics["top1_error"][1] == 8
    assert metrics["finite"] == (1, 1)


def test_update_is_the_gradient_of_the_smoothed_loss():
    def smoothed(logits, labels):
        return losses.cross_entropy(logits, labels, label_smoothing=0.2)

    optimizer, start = begin(Tiny(), rate=0.5, momentum=0.0)
    batch = draw_batch()
    now, metrics = jax.jit(step.make_train_step(Tiny(), optimizer, smoothed))(start, batch, KEY)

    def objective(params):
        variables = {"params": params, "batch_stats": start.batch_stats}
        logits, changed = Tiny().apply(
            variables, batch["image"], train=True, mutable=["batch_stats"]
        )
        target = 0.8 * jax.nn.one_hot(batch["label"], CLASSES) + 0.2 / CLASSES
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), -1)), changed

    (value, changed), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(start.params)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, start.params, grads)
    chex.assert_trees_all_close(now.params, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(now.batch_stats, changed["batch_stats"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"][0] / 8, value, rtol=1e-5)
    flat = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    np.testing.assert_allclose(metrics["grad_norm"][0], np.linalg.norm(flat), rtol=1e-5)


@pytest.mark.parametrize("fault", ["image", "label", "parameter"])
def test_what_is_not_finite_is_flagged(fault):
    optimizer, now = begin(Tiny())
    one = jax.jit(step.make_train_step(Tiny(), optimizer))
    batch = draw_batch()
    if fault == "image":
        batch["image"][3, 0, 0, 0] = np.inf
    elif fault == "label":
        batch["label"][3] = CLASSES
    else:
        now = now.replace(params=jax.tree.map(lambda p: p * jnp.nan, now.params))
    assert one(now, batch, KEY)[1]["finite"] == (0, 1)


def test_random_numbers_follow_from_key_step_and_slot():
    # A run that is taken up at step 3 draws what an undisturbed one draws there, and no two steps
    # draw the same.
    optimizer, start = begin(Tiny(dropout=0.5), rate=1e-6)
    one = jax.jit(step.make_train_step(Tiny(dropout=0.5), optimizer, preprocess=noisy))
    batch = draw_set(8) | {"index": np.arange(8, dtype=np.int32)}

    def loss_at(number, key=KEY):
        return float(one(start.replace(step=jnp.int32(number)), batch, key)[1]["loss"][0])

    assert len({loss_at(0), loss_at(1), loss_at(3), loss_at(3, jax.random.key(2))}) == 4


def test_evaluation_has_neither_noise_nor_dropout_nor_batch_statistics():
    _, start = begin(Tiny(dropout=0.5))
    evaluate = jax.jit(step.make_eval_step(Tiny(dropout=0.5), preprocess=noisy))
    index = np.arange(8, dtype=np.int32)
    whole = evaluate(start, draw_set(8) | {"index": index})
    mask = np.float32([1, 1, 1, 0, 0, 0, 0, 0])
    parts = [evaluate(start, draw_set(8) | {"index": index, "mask": m}) for m in (mask, 1 - mask)]
    assert parts[0]["loss"][1] == 3 and parts[1]["loss"][1] == 5
    chex.assert_trees_all_close(whole, jax.tree.map(jnp.add, *parts), rtol=1e-6)


def test_auxiliary_heads_are_weighted_in_or_left_out():
    model = Tiny(aux_heads=True)
    optimizer, start = begin(model, rate=1.0, momentum=0.0)
    batch = draw_batch()
    moved, main = {}, []
    for weight in (0.0, 0.3, 0.6):
        one = step.make_train_step(model, optimizer, aux_weight=weight)
        now, metrics = jax.jit(one)(start, batch, KEY)
        moved[weight] = jax.tree.map(jnp.subtract, now.params, start.params)
        main.append(metrics["loss"][0])
    np.testing.assert_allclose(main, main[0], rtol=1e-6)
    assert not np.any(moved[0.0]["aux1_fc"]["kernel"])
    # The gradient is linear in the weight, and the classifier does not feel the auxiliary head.
    chex.assert_trees_all_close(
        jax.tree.map(lambda a, b: (a + b) / 2, moved[0.0], moved[0.6]), moved[0.3], atol=1e-6
    )
    chex.assert_trees_all_close(moved[0.6]["fc"], moved[0.0]["fc"], atol=1e-6)
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    _, seen = model.apply(
        variables, batch["image"], train=True, mutable=["batch_stats", "endpoints"]
    )
    p = jax.nn.softmax(seen["endpoints"]["aux1"]) - jax.nn.one_hot(batch["label"], CLASSES)
    np.testing.assert_allclose(moved[0.3]["aux1_fc"]["bias"], -0.3 * p.mean(0), atol=1e-6)


def test_auxiliary_weight_without_heads_is_an_error():
    optimizer, start = begin(Tiny())
    one = step.make_train_step(Tiny(), optimizer, aux_weight=0.3)
    with pytest.raises(ValueError, match="Tiny has no auxiliary heads"):
        one(start, draw_batch(), KEY)


def test_bfloat16_computes_and_float32_remembers():
    model = Tiny(dtype=jnp.bfloat16)
    optimizer, start = begin(model, weight_decay=1e-4)
    seen = []

    def loss(logits, labels):
        seen.append(logits.dtype)
        return losses.cross_entropy(logits, labels)

    one = step.make_train_step(model, optimizer, loss)
    jaxpr = str(jax.make_jaxpr(one)(start, draw_batch(), KEY))
    now, metrics = jax.jit(one)(start, draw_batch(), KEY)
    assert "bf16[8,8,8,8]" in jaxpr
    assert set(seen) == {jnp.dtype(jnp.float32)}
    for part in (now.params, now.batch_stats, now.opt_state, metrics):
        assert {x.dtype for x in jax.tree.leaves(part)} <= {np.dtype("f4"), np.dtype("i4")}
    full, _ = jax.jit(step.make_train_step(Tiny(), optimizer))(start, draw_batch(), KEY)
    chex.assert_trees_all_close(now.batch_stats, full.batch_stats, rtol=0.02, atol=0.02)


def test_model_without_batch_norm_trains():
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            return nn.Dense(CLASSES, name="fc")(images.reshape(images.shape[0], -1))

    optimizer, start = begin(Flat())
    now, _ = jax.jit(step.make_train_step(Flat(), optimizer))(start, draw_batch(), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, now)
    assert now.batch_stats == {}


class Plain(nn.Module):
    """A convolution and a classifier: no BatchNorm, no dropout."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(images))
        return nn.Dense(CLASSES, name="fc")(x.mean((1, 2)))


@pytest.mark.parametrize("mode", ["platform", "reference"])  # unrolled on a CPU, and a loop
def test_accumulation_equals_the_large_batch(mode):
    optimizer, start = begin(Plain(), rate=0.5, weight_decay=1e-3)
    batch = draw_batch(12)
    whole = jax.jit(step.make_train_step(Plain(), optimizer))(start, batch, KEY)
    with ops.use(mode):
        parts = jax.jit(step.make_train_step(Plain(), optimizer, accumulate=3))(start, batch, KEY)
    chex.assert_trees_all_close(whole, parts, rtol=2e-6, atol=1e-7)


def test_accumulation_with_batch_norm_equals_devices_with_statistics_of_their_own():
    # BatchNorm's group is a part, as it is a device's share there. Sums in another order: 1e-5.
    model = Tiny(aux_heads=True)
    optimizer, start = begin(model)
    batch = draw_batch(8)
    options = {"aux_weight": 0.3}
    one = step.make_train_step(model, optimizer, accumulate=2, **options)
    parts, metrics = jax.jit(one)(start, batch, KEY)
    devices = jax.pmap(
        step.make_train_step(model, optimizer, axis_name="data", **options),
        "data",
        in_axes=(None, 0, None),
        out_axes=None,
        devices=jax.devices()[:2],
    )
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
    expected, expected_metrics = devices(start, halves, KEY)
    chex.assert_trees_all_close(parts, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-5)
    with pytest.raises(ValueError, match="accumulate is 3; it must divide a device's 8 examples"):
        step.make_train_step(model, optimizer, accumulate=3)(start, batch, KEY)


def test_soft_targets_reach_the_loss_and_labels_the_errors():
    optimizer, start = begin(Plain())
    batch = draw_batch()
    target = np.full((8, CLASSES), 1 / CLASSES, np.float32)

    def softened(batch, keys):
        return gather(batch) | {"target": target}

    one = jax.jit(step.make_train_step(Plain(), optimizer, preprocess=softened))
    _, metrics = one(start, batch, KEY)
    logits = Plain().apply({"params": start.params}, batch["image"])
    expected = -jnp.sum(target * jax.nn.log_softmax(logits))
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)
    assert metrics["top1_error"][0] == np.sum(np.argmax(logits, -1) != batch["label"])
