import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401
from test_step import draw_batch
from tiny import SHAPE, Tiny, begin

from jaxcnn.training import state, step, train
from jaxcnn.training.state import averaged, decay_at


def test_warm_up_of_the_average():
    at = [1, 10, 89, 1000]
    expected = [2 / 11, 11 / 20, 90 / 99, 0.95]
    found = [decay_at(jnp.int32(i), 0.95) for i in at]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_average_of_weights_and_statistics_over_steps():
    optimizer, _ = begin(Tiny())
    now = state.create_state(Tiny(), optimizer, jax.random.key(0), (1, *SHAPE), ema=True)
    shapes = state.abstract_state(Tiny(), optimizer, (1, *SHAPE), ema=True)
    chex.assert_trees_all_equal_shapes_and_dtypes(now, shapes)
    expected = {"params": now.params, "batch_stats": now.batch_stats}
    chex.assert_trees_all_equal(now.ema, expected)
    one = jax.jit(step.make_train_step(Tiny(), optimizer, ema_decay=0.3))
    for i in range(1, 5):
        now, _ = one(now, draw_batch(seed=i), jax.random.key(1))
        keep = min(0.3, (1 + i) / (10 + i))
        weights = {"params": now.params, "batch_stats": now.batch_stats}
        expected = jax.tree.map(lambda e, w, k=keep: k * e + (1 - k) * w, expected, weights)
    chex.assert_trees_all_close(now.ema, expected, rtol=1e-5, atol=1e-6)
    swapped = averaged(now)
    chex.assert_trees_all_equal(swapped.params, now.ema["params"])
    chex.assert_trees_all_equal_shapes_and_dtypes(swapped, now)


def test_a_run_evaluates_the_average_beside_the_weights_and_resumes_with_it(
    tiny_network,  # noqa: F811
    tmp_path,
):
    config = small_config(steps=8, batch_size=16)
    config.train.ema_decay, config.train.accumulate = 0.9, 2
    config.loss = {"name": "binary_cross_entropy", "threshold": 0.2}
    reports = run(config, tmp_path / "whole")
    rows = [r.values for r in reports if r.kind == "eval"]
    assert len(rows) == 2
    assert all(0 < row["ema_loss"] != row["loss"] for row in rows)
    assert {"ema_top1_error", "ema_top5_error"} <= rows[0].keys()
    assert [r.values for r in reports if r.kind == "notice"] == []
    with train(config, tmp_path / "parts") as reports:
        for report in reports:
            if report.kind == "step" and report.step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
    reports = run(config, tmp_path / "parts", resume=True)
    assert reports[0].step in (5, 6) and reports[-1].kind == "end"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
