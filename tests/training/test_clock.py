import time

import pytest

from jaxcnn.training import clock as timing


def test_time_is_counted_where_it_is_spent():
    clock = timing.Clock()
    time.sleep(0.05)
    clock.begin_steps()
    time.sleep(0.02)
    with clock.on(timing.EVALUATION):
        time.sleep(0.1)
    clock.finished(1)
    clock.finished(3)
    row = clock.take_steps(10)
    assert row["step_ms"] == pytest.approx(10_000 / row["images_per_second"])
    assert row["step_ms"] >= 5 and clock.total[timing.TRAINING] == pytest.approx(
        4 * row["step_ms"] / 1000
    )
    assert clock.take_steps(10) == {}, "they were taken"
    assert clock.take(timing.EVALUATION) >= 0.1 and clock.take(timing.EVALUATION) == 0
    assert clock.total[timing.TRAINING] <= clock.elapsed() - 0.15, "neither start nor evaluation"
    fractions = clock.fractions()
    assert sum(fractions.values()) == pytest.approx(1) and fractions["evaluation"] > 0
