"""The loop: what it reports and writes, and when it refuses or stops."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.cli.train import train_and_show
from jaxcnn.data import catalog
from jaxcnn.data.loader import resident
from jaxcnn.reporting import console
from jaxcnn.training import engine, train
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.input import loaders
from jaxcnn.training.output.checkpoints import Checkpoints
from jaxcnn.training.output.metrics_files import read_rows
from jaxcnn.training.output.records import read_summary

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture(scope="module")
def finished(tiny_network, tmp_path_factory):  # noqa: F811
    """One run to the end: (directory, reports)."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(small_config(steps=10), directory)


def of_kind(reports, kind):
    return [r for r in reports if r.kind == kind]


def test_reports_come_in_order(finished):
    reports = finished[1]
    assert [r.kind for r in reports[:4]] == ["start", "compiled", "first_step", "step"]
    assert reports[-1].kind == "end"
    assert [r.step for r in of_kind(reports, "step")] == list(range(1, 11))
    assert [r.step for r in of_kind(reports, "train")] == [3, 6, 9]
    assert [r.step for r in of_kind(reports, "eval")] == [4, 8, 10]
    assert [r.step for r in of_kind(reports, "checkpoint") if not r.values["best"]] == [4, 8, 10]
    assert not of_kind(reports, "notice")
    start = reports[0].values
    assert (start["train_examples"], start["test_examples"], start["total_steps"]) == (200, 70, 10)
    assert reports[-1].epoch == 10 * 48 / 200
    assert reports[1].values["memory_bytes"] > 1000
    (first,) = of_kind(reports, "first_step")
    seconds = (reports[1].values["seconds"], *first.values.values(), reports[-1].values["seconds"])
    assert seconds == tuple(sorted(seconds)) and first.step == 1
    assert all(r.values["images_per_second"] > 1 for r in of_kind(reports, "train"))


def test_rows_are_means_over_the_steps_between(finished):
    reports = finished[1]
    losses = [r.values["loss"] for r in of_kind(reports, "step")]
    for report, first in zip(of_kind(reports, "train"), (0, 3, 6)):
        assert report.values["loss"] == pytest.approx(np.mean(losses[first : first + 3]), rel=1e-6)
    for report, steps in zip(of_kind(reports, "eval"), ((0, 4), (4, 8), (8, 10))):
        assert report.values["train_loss"] == pytest.approx(
            np.mean(losses[slice(*steps)]), rel=1e-6
        )
    rate = of_kind(reports, "train")[1].values["learning_rate"]
    assert rate == pytest.approx(0.1 * 0.5 * (1 + np.cos(np.pi * 5 / 10)), rel=1e-5)


def test_everything_is_in_the_directory(finished):
    directory, reports = finished
    names = {p.name for p in directory.iterdir()}
    assert names == {
        *("config.json", ".lock", ".written", "checkpoints", "best", "tensorboard"),
        *("metrics.jsonl", "metrics.csv", "curves.png", "predictions.png", "run_summary.json"),
    }
    summary = read_summary(directory)
    assert summary["step"] == 10 and summary["compiled"]["seconds"] > 0
    errors = np.array(summary["labels"]) != np.array(summary["predicted"])
    assert errors.mean() == pytest.approx(reports[-1].values["top1_error"], abs=1e-6)
    rows = read_rows(directory)
    assert [(r["kind"], r["step"]) for r in rows] == [
        (r.kind, r.step) for r in reports if r.kind in ("train", "eval")
    ]
    errors = {r["step"]: r["top1_error"] for r in rows if r["kind"] == "eval"}
    with Checkpoints(directory / "best", 1) as best:
        assert best.steps() == [min(errors, key=errors.get)]
    manifest = json.loads((directory / "config.json").read_text())
    assert manifest["config"]["train"]["batch_size"] == 48
    assert manifest["seed"] == 0


def test_the_evaluation_is_that_of_the_saved_state(finished):
    """The last row's test error, counted again from the newest checkpoint by hand."""
    directory, reports = finished
    experiment = build_experiment(TrackedConfig(small_config(steps=10)))
    from jaxcnn.training.output.checkpoints import abstract

    with Checkpoints(directory / "checkpoints", 3) as store:
        _, state, _, _ = store.restore_newest(abstract(experiment.shapes, experiment.mesh))
    test_set = experiment.test_set
    images = (test_set.images / 255 - np.float32(test_set.mean)) / np.float32(test_set.std)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(experiment.model.apply(variables, images.astype(np.float32), train=False))
    wrong = np.mean(np.argmax(logits, -1) != test_set.labels)
    assert reports[-1].values["top1_error"] == pytest.approx(wrong, abs=1e-7)
    predicted = engine.predict(experiment, state, test_set.images, test_set.labels)
    assert np.array_equal(predicted, np.argmax(logits, -1))


def test_several_steps_in_a_call_and_one_are_the_same_run(finished, tmp_path):
    """A call never reaches over an evaluation; metrics come out step by step the same."""
    config = small_config(steps=10)
    config.train.steps_per_call = 3
    reports = run(config, tmp_path)
    assert "slower" in of_kind(reports, "notice")[0].values["text"]
    assert [r.step for r in of_kind(reports, "step")] == [3, 4, 7, 8, 9, 10]
    one, many = (of_kind(r, "eval") for r in (finished[1], reports))
    for a, b in zip(one, many, strict=True):
        assert a.step == b.step
        measured = [k for k in a.values if not k.endswith("seconds")]
        for name in measured:
            np.testing.assert_allclose(a.values[name], b.values[name], rtol=2e-3)


def test_eight_devices_count_every_example_once():
    """1,797 examples on 8 devices, in batches of 125, rounded up; none twice, none left out."""
    config = small_config()
    config.data.train_split, config.data.test_split = "train[:64]", "train"
    config.train.devices, config.train.batch_size, config.eval.batch_size = 8, 64, 125
    experiment = build_experiment(TrackedConfig(config))
    assert experiment.eval_batch_size == 128
    many = catalog.load("synthetic", "train")
    repeat = np.arange(1797) % len(many.labels)
    test_set = dataclasses.replace(many, images=many.images[repeat], labels=many.labels[repeat])
    experiment = dataclasses.replace(experiment, test_set=test_set)
    assert experiment.mode == "shard_map"
    state = engine.make_init(experiment)(jax.random.key(0))
    step, batches = engine.compile_eval_step(experiment), loaders.eval_loader(experiment)
    means = engine.evaluate(step, state, batches(), 1797)
    predicted = engine.predict(experiment, state, test_set.images, test_set.labels)
    assert means["top1_error"] == pytest.approx(np.mean(predicted != test_set.labels), abs=1e-7)


def test_an_evaluation_that_leaves_examples_out_is_an_error(tmp_path, monkeypatch):
    whole = resident.eval_batches
    monkeypatch.setattr(resident, "eval_batches", lambda *args: list(whole(*args))[:-1])
    with pytest.raises(ValueError, match="counted 64 of 70 examples"):
        run(small_config(), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = small_config()
    config.schedule.learning_rate = 1e6
    with pytest.raises(FloatingPointError, match=r"not finite at step [2-5]: "):
        run(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", 3) as store:
        assert store.steps() == []


def test_a_label_out_of_range_is_named(tmp_path, monkeypatch):
    whole = catalog.open_source

    def planted(name, data_dir=None):
        source = whole(name, data_dir)

        def read(part, start, stop):
            images, labels = source.read(part, start, stop)
            labels[17] = 10
            return images, labels

        return dataclasses.replace(source, read=read)

    monkeypatch.setattr(catalog, "open_source", planted)
    with pytest.raises(ValueError, match=r"label 10 of example 17 .*classes are 0 to 9"):
        run(small_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.name", "resent20_cifar", "unknown model 'resent20_cifar'"),
        ("model.options.widht", 3, "unknown option 'widht'"),
        ("data.source", "digit", "'digit'.*did you mean 'digits'"),
        ("data.train_split", "trian", "'trian'"),
        ("data.source", "files:cifar10", "'files:cifar10' needs data_dir"),
        ("data.augment", (("flop", 1),), "'flop'"),
        (
            "train.batch_size",
            20,
            "config.train.batch_size is 20, which cannot be split evenly over 8",
        ),
        ("train.devices", 9, "devices is 9; this machine has 8"),
        ("train.bn_sync", "globl", "bn_sync is 'globl'"),
        ("optimizer.name", "sdg", "'sdg'.*did you mean 'sgd'"),
        ("schedule.name", "cosin", "'cosin'.*did you mean 'cosine'"),
        ("schedule.learning_rate", -1.0, "learning_rate"),
        ("loss.label_smoothing", 1.5, "label_smoothing is 1.5"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(tmp_path, field, value, message):
    config = small_config()
    config.train.devices = 0
    *sections, name = field.split(".")
    section = config
    for part in sections:
        section = section[part]
    with section.unlocked():
        section[name] = value
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fields_that_nothing_reads_are_reported(tmp_path):
    config = small_config(steps=1)
    with config.schedule.unlocked():
        config.schedule.factor = 0.1
    notices = of_kind(run(config, tmp_path), "notice")
    assert [n.values["text"] for n in notices] == ["unused config fields: schedule.factor"]


def test_a_plateau_schedule_hears_of_evaluations(tmp_path):
    config = small_config(steps=10)
    with config.unlocked():
        config.schedule = {"name": "plateau", "learning_rate": 1e-6, "patience": 1, "factor": 0.5}
    rates = [r["learning_rate"] for r in map(dict, read_train_rows(config, tmp_path))]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[-1] < 0.9e-6


def read_train_rows(config, directory):
    run(config, directory)
    return [row for row in read_rows(directory) if row["kind"] == "train"]


def test_lines_for_a_run_without_a_terminal(finished, tmp_path, capsys):
    directory, reports = finished
    assert console.show(iter(reports), directory) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("tiny (") and "synthetic (200 to train on, 70 to test on)" in lines[0]
    )
    assert lines[1].startswith("compiled in ")
    assert lines[2].startswith("first step done after")
    assert [line.split()[3] for line in lines[3:6]] == ["4/10", "8/10", "10/10"]
    error = reports[-1].values["top1_error"]
    assert f"test error {100 * error:.2f} % ({round(70 * error)} of 70 wrong)" in lines[7]
    assert lines[6].startswith("time: ") and "% compiling" in lines[6]
    assert len(lines) == 8


def test_exit_codes(tmp_path, capsys):
    config = small_config()
    config.schedule.learning_rate = 1e6
    assert train_and_show(config, tmp_path / "a") == 1
    assert "not finite at step" in capsys.readouterr().err
    config.train.batch_size = 0
    assert train_and_show(config, tmp_path / "b") == 2
    error = capsys.readouterr().err
    assert error == (
        "train.py: error: config.train.batch_size is 0; it must be an integer, 1 or more and at "
        "most 1,048,576\n"
    )


def test_nothing_happens_before_the_first_report_is_asked_for(tmp_path):
    train(small_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "switch", [jax.disable_jit, lambda: jax.numpy_dtype_promotion("strict")], ids=["jit", "types"]
)
def test_switches_for_debugging(finished, tmp_path, switch):
    """JAX_DISABLE_JIT=1 and JAX_NUMPY_DTYPE_PROMOTION=strict."""
    with switch():
        reports = run(small_config(steps=2), tmp_path)
    losses = [r.values["loss"] for r in of_kind(reports, "step")]
    expected = [r.values["loss"] for r in of_kind(finished[1], "step")][:2]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
