"""A member equals the run trained alone: to the bit one after another, to rounding under vmap."""

import io
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import photos
import pytest
from PIL import Image
from small import (  # noqa: F401
    assert_same_run,
    last_checkpoint,
    run,
    small_config,
    tiny_network,
)

from jaxcnn.cli import main
from jaxcnn.reporting import curves, show
from jaxcnn.runtime import compilation
from jaxcnn.training import train
from jaxcnn.training.ensemble import lockstep, members
from jaxcnn.training.ensemble import shared as shared_build
from jaxcnn.training.input import loaders

pytestmark = pytest.mark.usefixtures("tiny_network")


def config_of(text=None, by=None, *, steps=6, dropout=0.0, **schedule):
    config = small_config(steps=steps)
    config.model.options = {"dropout": dropout}
    config.schedule.update(schedule)
    config.train.members, config.train.ensemble_mode = text, by
    return config


def alone(config, directory, **seeds):
    config.train.update(seeds)
    run(config, directory)
    return directory


def assert_close(one, other):
    (step, state, _), (other_step, other_state, _) = map(last_checkpoint, (one, other))
    assert step == other_step and state.keys() == other_state.keys()
    for path, value in state.items():
        np.testing.assert_allclose(value, other_state[path], rtol=1e-3, atol=1e-4, err_msg=path)


@pytest.fixture(scope="module")
def reference(tiny_network, tmp_path_factory):  # noqa: F811
    """Where a run of seed 1 lies that was trained alone."""
    return alone(config_of(), tmp_path_factory.mktemp("alone"), seed=1)


@pytest.mark.parametrize("by", ["sequential", "vmap"])
def test_members_equal_the_run_alone(reference, tmp_path, by):
    reports = run(config_of("2", by), tmp_path)
    assert {report.member for report in reports} == {0, 1}
    (assert_same_run if by == "sequential" else assert_close)(tmp_path / "member_1", reference)


@pytest.mark.parametrize("by", [pytest.param("sequential", marks=pytest.mark.slow), "vmap"])
def test_members_stopped_and_resumed_end_in_the_same_bits(tmp_path, by):
    """A signal while the last member is at step 5; members that are done stay as they are."""
    run(config_of("2", by), tmp_path / "undisturbed")
    stopped = []
    with train(config_of("2", by), tmp_path / "stopped") as reports:
        for report in reports:
            if report.kind == "step" and (report.member, report.step) == (1, 2):
                signal.raise_signal(signal.SIGTERM)
            stopped.append((report.member, report.kind))
    assert (1, "stopped") in stopped and ((0, "end") in stopped) == (by == "sequential")
    run(config_of("2", by), tmp_path / "stopped", resume=True)
    for i in range(2):
        assert_same_run(*(tmp_path / d / f"member_{i}" for d in ("stopped", "undisturbed")))


def test_a_signal_while_a_member_draws_its_figures_stops_before_the_next(tmp_path, monkeypatch):
    draw, out = curves.plot_curves, io.StringIO()

    def interrupted(*arguments):
        draw(*arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(curves, "plot_curves", interrupted)
    reports = list(train(config_of("3", "sequential", steps=2), tmp_path))
    assert [(r.member, r.kind) for r in reports if r.kind in ("end", "stopped")] == [
        (0, "end"),
        (1, "stopped"),
    ]
    assert show(reports, tmp_path, out) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM before the first step of member 1: continue with" in out.getvalue()


@pytest.mark.slow
def test_one_behind_catches_up(tmp_path):
    """As after a kill between the checkpoints of two members: steps of one, then of both."""
    run(config_of("2", "vmap"), tmp_path / "all")
    shutil.copytree(tmp_path / "all", tmp_path / "behind")
    shutil.rmtree(tmp_path / "behind" / "member_1" / "checkpoints" / "6")
    reports = run(config_of("2", "vmap"), tmp_path / "behind", resume=True)
    steps = [(r.member, r.step) for r in reports if r.kind == "step"]
    assert steps == [(1, 5), (1, 6)]
    assert_same_run(*(tmp_path / d / "member_1" for d in ("all", "behind")))


@pytest.mark.slow
def test_members_differ_in_learning_rate(tmp_path):
    text = "schedule.learning_rate=0.02,0.1"
    run(config_of(text, "sequential"), tmp_path / "sequential")
    run(config_of(text, "vmap"), tmp_path / "vmap")
    one = alone(config_of(learning_rate=0.02), tmp_path / "alone")
    assert_same_run(tmp_path / "sequential" / "member_0", one)
    assert_close(tmp_path / "vmap" / "member_0", one)
    rates = [read_rates(tmp_path / "sequential" / f"member_{i}")[0] for i in range(2)]
    assert rates[1] == pytest.approx(5 * rates[0], rel=1e-6)


def read_rates(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [r["learning_rate"] for r in map(json.loads, lines) if r["kind"] == "train"]


@pytest.mark.slow
def test_members_differ_in_dropout_alone(tmp_path):
    run(config_of("train.dropout_seed=3,4", "sequential", dropout=0.5, steps=4), tmp_path / "all")
    one = alone(config_of(dropout=0.5, steps=4), tmp_path / "alone", dropout_seed=4)
    assert_same_run(tmp_path / "all" / "member_1", one)
    zero, other = (last_checkpoint(tmp_path / "all" / f"member_{i}")[1] for i in range(2))
    assert any((zero[path] != other[path]).any() for path in zero)


@pytest.mark.slow
def test_members_are_spread_over_devices(reference, tmp_path):
    config = config_of("3", "vmap")
    config.train.devices = 2
    experiments = shared_build.build_shared(
        members.member_configs(config), one_device=True
    ).experiments
    devices = [one.mesh.devices.item() for one in experiments]
    assert devices == [jax.devices()[i] for i in (0, 0, 1)]
    run(config, tmp_path)
    assert_close(tmp_path / "member_1", reference)


@pytest.mark.parametrize("by", ["sequential", "vmap"])
def test_a_member_that_breaks_does_not_stop_the_others(tmp_path, by):
    kinds = []
    with pytest.raises(
        FloatingPointError, match="member 0: the loss or its gradient is not finite at"
    ):
        for report in train(config_of("schedule.learning_rate=1e6,0.1", by), tmp_path):
            kinds.append((report.member, report.kind))
    assert (0, "end") not in kinds and kinds[-1] == (1, "end")
    state = last_checkpoint(tmp_path / "member_1")[1]
    assert all(np.isfinite(value).all() for value in state.values())


@pytest.mark.slow
@pytest.mark.parametrize("by", ["sequential", "vmap"])
def test_members_on_photos_that_stream(tmp_path, by):
    counts = {"train": {"ant": 12, "bee": 10}, "val": {"ant": 5, "bee": 6}}
    root = photos.write_folder(tmp_path / "set", counts, 12, 16)

    def config(text=None):
        made = config_of(text, by, steps=4)
        made.data.source, made.data.image_size = f"folder:{root}", 8
        made.data.train_split, made.data.test_split = "train", "test"
        made.train.batch_size = made.eval.batch_size = 8
        return made

    run(config("2"), tmp_path / "all")
    single = alone(config(), tmp_path / "alone", seed=1)
    (assert_same_run if by == "sequential" else assert_close)(tmp_path / "all" / "member_1", single)


def test_a_member_is_a_run_of_its_own(tmp_path, capsys):
    overrides = ["train.devices=1", "data.test_split=test[:64]", "train.members=2"]
    given = ["train", "configs/lenet_digits.py:smoke", *overrides]
    assert main([*given, "--workdir", str(tmp_path / "two")]) == 0
    one, weights = str(tmp_path / "two" / "member_1"), str(tmp_path / "one.safetensors")
    assert main(["export", one, weights]) == 0
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(picture)
    assert main(["predict", str(picture), "--weights", one]) == 0
    capsys.readouterr()
    out = str(tmp_path / "e.json")
    assert main(["evaluate", str(tmp_path / "two"), f"{one}@flip", weights, "--json", out]) == 0
    rows = json.loads(Path(out).read_text())["rows"]
    assert [row["name"] for row in rows][1:] == [one, f"{one}@flip", weights]
    assert rows[1]["class_errors"] == rows[3]["class_errors"]
    given = [*given[:-1], "train.seed=1", "--workdir", one, "--resume"]
    assert main(given) == 0  # it is done, and stays as it is
    assert "done in" in capsys.readouterr().out


def test_overwriting_needs_no_run(tmp_path):
    reports = train(config_of("2", steps=2), tmp_path / "new", overwrite=True)
    assert [r.member for r in reports if r.kind == "end"] == [0, 1]


def test_members_are_checked(tmp_path):
    for text, match in (
        ("none of", "must be a number"),
        ("0", "must be a number, 1 to 1,000"),
        ("train.sed=1", "train.seed"),
        ("train.seed=1,1", "it has 1 twice"),
        ("train.batch_size=1,2", "members may differ in"),
    ):
        config = small_config(model="lenet5_modern")
        config.train.members = text
        with pytest.raises(ValueError, match=match):
            run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_copy_of_the_training_set_on_a_device():
    shared = shared_build.build_shared(
        members.member_configs(config_of("3", "vmap")), one_device=True
    )
    engines = shared_build.make_engines(shared, lockstep=True)
    images = {
        id(loaders.train_loader(experiment, 0, None, engine.placed).batch(0, 1)["images"])
        for experiment, engine in zip(shared.experiments, engines, strict=True)
    }
    assert len(images) == len({experiment.mesh for experiment in shared.experiments})


def test_the_first_member_is_traced(tmp_path):
    """JAX traces one run at a time, and the members' steps are one program."""
    config = config_of("2", "vmap", steps=5)
    config.log.profile = 1
    run(config, tmp_path)
    traces = tmp_path.rglob("perfetto_trace.json.gz")
    assert [path.relative_to(tmp_path).parts[0] for path in traces] == ["member_0"]


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_common_step_is_deterministic_if_asked(tmp_path, monkeypatch, deterministic):
    """Checks the option that reaches the compiler; only GPUs have nondeterministic kernels."""
    asked, jit = [], compilation.jit

    def note(function, **options):
        if function.__qualname__.startswith("joint."):
            asked.append(options["deterministic"])
        return jit(function, **options)

    monkeypatch.setattr(compilation, "jit", note)
    config = config_of("2", "vmap", steps=1)
    config.train.deterministic = deterministic
    run(config, tmp_path)
    assert asked == [deterministic]


class Ending:
    """A run whose last metrics arrive when it ends."""

    def __init__(self, loss):
        self.loss, self.step, self.saved = loss, 7, False
        self.config = self.experiment = self
        self.train, self.mesh, self.deterministic = self, None, False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def begin(self):
        return iter(())

    def finished(self):
        return True

    def end(self):
        if not np.isfinite(self.loss):
            raise FloatingPointError("the loss is not finite")
        self.saved = True
        yield from ()


def test_a_member_that_fails_at_the_end_does_not_stop_the_others():
    runs, failed = [Ending(np.nan), Ending(1.0)], {}
    assert list(lockstep.train_in_lockstep(runs, None, [], failed)) == []
    assert failed.keys() == {0} and runs[1].saved
