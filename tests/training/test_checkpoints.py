"""Checkpoints: bit for bit, with donation, on other devices, and when files are broken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.training import parallel
from jaxcnn.training.output.checkpoints import Checkpoints, abstract
from jaxcnn.training.state import TrainState


def make_state(seed=0, step=0):
    kernel = jax.random.normal(jax.random.key(seed), (64, 32))
    params = {"fc": {"kernel": kernel, "bias": kernel[0] * 1e-30}}
    optimizer = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(0.1))
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats={"bn": {"mean": kernel[0]}},
        opt_state=optimizer.init(params),
    )


def like(devices=1):
    return abstract(jax.eval_shape(make_state), parallel.make_mesh(devices))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def data_files(folder):
    """The files that hold a checkpoint's arrays, largest first."""
    files = [p for p in folder.rglob("d/*") if p.is_file()]
    return sorted(files, key=lambda p: -p.stat().st_size)


@pytest.mark.parametrize("name", ["new", "run #1", "why?", "50%", "a%20b"])  # of URLs
def test_round_trip_and_newest_are_kept(tmp_path, name):
    with Checkpoints(tmp_path / name / "c", keep=2) as store:
        assert store.restore_newest(like()) is None
        for step in (3, 6, 9):
            assert store.save(make_state(step, step), step, {"log": {"loss": [0.1 + step, 3.0]}})
        assert not store.save(make_state(), 9, {})
        store.wait()
        assert store.steps() == [6, 9]
        step, state, meta, notices = store.restore_newest(like())
    assert (step, notices) == (9, [])
    assert meta == {"log": {"loss": [9.1, 3.0]}}
    assert_same(state, make_state(9, 9))


def test_reading_warns_about_nothing(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=1) as store:
        store.save(make_state(), 1, {})
    caplog.clear()
    with Checkpoints(tmp_path) as store:
        assert store.restore_newest(like())[0] == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_later_steps_do_not_reach_what_is_being_saved(tmp_path):
    """The state is given away to the next step while it is being written."""
    step = jax.jit(
        lambda s: s.replace(params=jax.tree.map(lambda p: p * 0 - 1, s.params)), donate_argnums=0
    )
    state = make_state(5)
    with Checkpoints(tmp_path / "c", keep=1) as store:
        store.save(state, 1, {})
        for _ in range(3):
            state = step(state)
        store.wait()
        assert_same(store.restore(1, like())[0], make_state(5))


def test_the_one_being_saved_counts(tmp_path):
    """Whether it is complete or not, so that the next best one is compared with it."""
    with Checkpoints(tmp_path / "c", keep=1) as store:
        for step in (1, 2):
            assert store.save(make_state(step), step, {})
            assert store.steps() == [step]
            assert not store.save(make_state(step), step, {})


def test_an_error_in_the_background_is_raised_later_and_names_the_step(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as store:
        store.save(make_state(), 1, {})
        store.wait()
        store.save(make_state(), 2, {"log": jax.random.key(0)})  # not a number
        with pytest.raises(OSError, match=r"of step 2 cannot be .* newest good one is of step 1"):
            store.wait()
        store.check()  # raised once


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_restores_on_another_number_of_devices(tmp_path, before, after):
    with Checkpoints(tmp_path / "c", keep=1) as store:
        store.save(parallel.place_state(make_state(), parallel.make_mesh(before)), 1, {})
        store.wait()
    with Checkpoints(tmp_path / "c", keep=1) as store:
        state, _ = store.restore(1, like(after))
    assert_same(state, make_state())
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {after}


@pytest.mark.parametrize("fault", ["truncated", "missing", "state metadata", "numbers"])
def test_falls_back_to_the_last_good_one_and_says_so(tmp_path, fault):
    tmp_path = tmp_path / "a%20b"
    with Checkpoints(tmp_path / "c", keep=3) as store:
        for step in (1, 2, 3):
            store.save(make_state(step), step, {})
    for step in (2, 3):
        folder = tmp_path / "c" / str(step)
        if fault == "state metadata":
            (folder / "state" / "_METADATA").write_text("{")
        elif fault == "numbers":
            (folder / "meta" / "metadata").write_text("")
        else:
            for file in data_files(folder / "state"):
                file.unlink() if fault == "missing" else file.write_bytes(file.read_bytes()[:-20])
    with Checkpoints(tmp_path / "c", keep=3) as store:
        step, state, _, notices = store.restore_newest(like())
        assert (step, store.steps()) == (1, [1])
        assert_same(state, make_state(1))
        assert len(notices) == 2
        assert "checkpoint of step 3 cannot be read" in notices[0]
        assert "continuing from step 1" in notices[0]
        # The place is free again, and nothing is lost.
        assert store.save(make_state(3), 3, {})
        store.wait()
        assert_same(store.restore_newest(like())[1], make_state(3))
    assert sorted(p.name for p in (tmp_path / "unreadable").iterdir()) == ["step_2", "step_3"]


def test_none_readable_is_an_error_that_moves_nothing(tmp_path):
    with Checkpoints(tmp_path / "c", keep=3) as store:
        store.save(make_state(), 4, {})
    for file in data_files(tmp_path / "c" / "4"):
        file.write_bytes(b"")
    with (
        Checkpoints(tmp_path / "c", keep=3) as store,
        pytest.raises(ValueError, match=r"none of the 1 checkpoints .* newest, of step 4"),
    ):
        store.restore_newest(like())
    assert (tmp_path / "c" / "4").is_dir()


def test_a_half_written_one_is_not_seen(tmp_path):
    with Checkpoints(tmp_path / "c", keep=3) as store:
        store.save(make_state(1), 1, {})
    half = tmp_path / "c" / "2.orbax-checkpoint-tmp-17" / "state.orbax-checkpoint-tmp-18"
    half.mkdir(parents=True)
    with Checkpoints(tmp_path / "c", keep=3) as store:
        assert store.restore_newest(like())[0] == 1
        assert store.save(make_state(2), 2, {})
        store.wait()
        assert store.steps() == [1, 2]


def test_later_ones_can_be_deleted(tmp_path):
    with Checkpoints(tmp_path / "c", keep=5) as store:
        for step in (1, 2, 3):
            store.save(make_state(), step, {})
        store.wait()
        store.delete_after(1)
        assert store.steps() == [1]
