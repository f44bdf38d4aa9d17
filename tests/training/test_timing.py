import time

import pytest

from jaxcnn.training import timing


def test_time_is_counted_where_it_is_spent():
    clock = timing.Clock()
    with clock.on(timing.STEPS, 1):
        time.sleep(0.02)
    with clock.on(timing.EVALUATION):
        time.sleep(0.04)
    with clock.on(timing.STEPS, 3):
        time.sleep(0.02)
    row = clock.take_steps(10)
    assert row["step_ms"] == pytest.approx(10_000 / row["images_per_second"])
    assert row["step_ms"] >= 10 and clock.total[timing.STEPS] >= 0.04
    assert clock.take_steps(10) == {}, "they were taken"
    assert clock.take(timing.EVALUATION) >= 0.04 and clock.take(timing.EVALUATION) == 0
    shares = clock.shares()
    assert sum(shares.values()) == pytest.approx(1) and shares["evaluation"] > 0


def test_time_before_an_error_is_not_lost():
    clock = timing.Clock()
    with pytest.raises(ZeroDivisionError), clock.on(timing.STEPS, 1):
        1 / 0  # noqa: B018
    assert clock.take_steps(1) == {}, "steps that failed are none"
