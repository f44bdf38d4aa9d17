"""Studies: what is planned for a budget, carried out once, taken up again, and drawn."""

import copy
import dataclasses
import json
import textwrap

import numpy as np
import pytest
from marks import leave_a_mark

from jaxcnn import create_model, summarize
from jaxcnn.cli import main
from jaxcnn.reporting.figures import make_figure
from jaxcnn.studies import console, execute, plan, results
from jaxcnn.studies.catalog import STUDIES, load_study
from jaxcnn.studies.plan import Cost
from jaxcnn.studies.study import Run, Study, make_config, read_overrides
from jaxcnn.training.config import TrackedConfig, validate
from jaxcnn.training.optim import schedules
from jaxcnn.training.output.workdir import write_manifest

TINY = Study(
    title="tiny",
    base={
        "model.name": "lenet5",
        "data.source": "digits",
        "data.train_split": "train[:64]",
        "data.test_split": "test[:32]",
        "train.batch_size": 16,
        "train.length_steps": 20,
        "train.devices": 1,
        "eval.batch_size": 32,
        "schedule": {"name": "constant", "learning_rate": 0.05},
    },
    runs=(
        Run("relu", {"model.options.act": "relu"}, x=1.0, published=3.0),
        Run("tanh", {"model.options.act": "tanh"}, x=2.0, rank=1),
    ),
    seeds=2,
    x="act",
)


_COSTS = [Cost(10, 0.1), Cost(20, 0.2)]


@pytest.mark.parametrize("name", STUDIES)
def test_configurations_of_every_study_are_valid_and_differ(name):
    study = load_study(name)
    for full in (True, False):
        jobs = plan.make_jobs(study, full=full)
        assert len(jobs) == len(study.runs) * (study.seeds if full else 1)
        assert len({job.name for job in jobs}) == len(jobs)
        assert len({json.dumps(job.config.to_dict(), sort_keys=True) for job in jobs}) == len(jobs)
        for job in jobs:
            validate(job.config)
    assert {run.rank for run in study.runs} == set(range(len({r.rank for r in study.runs})))


def test_the_full_study_is_the_papers_recipe():
    jobs = plan.make_jobs(load_study("residual_vs_plain"), full=True)
    by_name = {job.name: job.config for job in jobs}
    config = by_name["plain-56_seed3"]
    assert (config.model.name, config.train.seed) == ("plain56_cifar", 3)
    assert (config.train.batch_size, config.train.length_steps) == (128, 64_000)
    assert config.schedule.boundaries_percent == (50, 75)
    assert "warmup_steps" not in config.schedule
    assert by_name["resnet-110_seed0"].schedule.warmup_steps == 400
    assert config.eval.every_percent == 5


@pytest.mark.parametrize(
    ("minutes", "steps", "most_rank"),
    [(100, 1000, 1), (2.5, 400, 1), (1.5, 200, 1), (1, 500, 0), (0.01, 20, 0)],
)
def test_a_budget_cuts_steps_then_runs_then_steps(minutes, steps, most_rank):
    """10 s to compile and 0.1 s a step, and twice that: 30 s and 0.3 s a step for both."""
    study = Study("t", {**TINY.base, "train.length_steps": 1000}, TINY.runs)
    scale = plan.fit(study, minutes, _COSTS, None, {})
    assert (scale.steps, scale.most_rank, scale.seeds) == (steps, most_rank, 1)
    assert any("without tanh" in text for text in scale.said) == (most_rank == 0)
    assert any("steps per run" in text for text in scale.said) == (steps < 1000)
    assert ("1 runs of 20 steps, takes about 0.2 minutes" in scale.warning) == (minutes == 0.01)
    less = plan.fit(study, minutes + 0.5, _COSTS, None, {}, spent=30)
    assert (less.steps, less.most_rank) == (steps, most_rank)


@pytest.mark.parametrize(("minutes", "seeds", "steps"), [(3, 3, 500), (2, 3, 300), (1.05, 2, 215)])
def test_a_budget_cuts_seeds_after_runs(minutes, seeds, steps):
    """Of the lightest run: 10 s to compile and 0.1 s a step, for each of three seeds."""
    study = Study("t", {**TINY.base, "train.length_steps": 1000}, TINY.runs)
    scale = plan.fit(study, minutes, [Cost(10, 0.1), Cost(100, 9)], 3, {})
    assert (scale.seeds, scale.steps, scale.most_rank) == (seeds, pytest.approx(steps, abs=50), 0)
    assert any("2 seeds instead of 3" in text for text in scale.said) == (seeds == 2)


def test_runs_of_different_lengths_are_cut_in_proportion():
    runs = [Run(str(n), {"train.length_steps": n}) for n in (100, 400)]
    study = Study("t", TINY.base, runs)
    costs = [Cost(10, 0.1), Cost(10, 0.1)]  # 20 s and 50 s for all steps
    whole = plan.fit(study, 2, costs, None, {})
    assert whole.steps == {"100": 100, "400": 400}
    assert not any("steps" in text for text in whole.said)
    half = plan.fit(study, 0.75, costs, None, {})
    assert half.steps == {"100": 50, "400": 200}
    assert "50 to 200 steps per run instead of 100 to 400" in half.said
    jobs = plan.make_jobs(study, steps=half.steps)
    assert [job.config.train.length_steps for job in jobs] == [50, 200]
    ranked = dataclasses.replace(study, runs=[runs[0], dataclasses.replace(runs[1], rank=1)])
    short = plan.fit(ranked, 0.4, costs, None, {})  # the long run is left out, the other is whole
    assert short.most_rank == 0 and short.steps["100"] == 100
    assert not any("steps" in text for text in short.said)


def test_other_files_in_its_directory_are_not_replaced(tmp_path):
    (tmp_path / "table.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"table\.txt that is not of a study"):
        console.run(
            TINY, tmp_path, full=True, minutes=1, seeds=1, overrides={}, jobs_at_once=1,
            executor="local", gpus=0,
        )  # fmt: skip
    assert (tmp_path / "table.txt").read_text() == "mine"


def test_a_run_shorter_than_the_least_is_not_made_longer():
    study = Study("t", {**TINY.base, "train.length_steps": 8}, TINY.runs)
    assert plan.fit(study, 0.01, _COSTS, None, {}).steps == 8


QUICK = {"dropout"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in STUDIES]
)
def test_every_run_can_be_built_within_every_budget(name, tmp_path):
    """At five lengths, and at those of machines ten times slower and faster than a usual one."""
    study = load_study(name)
    lengths = {20, 100, 213, 360, 700}
    for speed in (0.1, 1, 10):
        costs = [
            Cost((5 + 3 * run.rank) / speed, (0.02 + 0.01 * run.rank) / speed) for run in study.runs
        ]
        for minutes in (0.3, 3, 10):
            scale = plan.fit(study, minutes, costs, None, {})
            lengths.add(scale.steps)
            kept = [cost for run, cost in zip(study.runs, costs) if run.rank <= scale.most_rank]
            takes = sum(cost.fixed + scale.steps * cost.step for cost in kept) / 60
            assert takes <= 1.34 * minutes or scale.steps == plan._LEAST_STEPS
            assert ("takes about" in scale.warning) == (takes > 1.1 * minutes)
    for steps in lengths:  # all that a length changes
        for job in plan.make_jobs(study, steps=steps):
            assert job.config.train.length_steps == steps
            validate(job.config)
            schedules.make_schedule(TrackedConfig(job.config).schedule, steps, 45.0, batch_size=32)
    plan.check(plan.make_jobs(study, steps=20), tmp_path)


def test_durations_scale_with_the_length():
    """400 of 64,000 steps are 5 of 800; the user's own are of the run that they are given for."""
    study = load_study("residual_vs_plain")

    def warmup(**how):
        jobs = {job.run.label: job.config for job in plan.make_jobs(study, **how)}
        schedule, steps = jobs["plain-110"].schedule, jobs["plain-110"].train.length_steps
        return schedules.duration(schedule, "warmup", steps_per_epoch=1, total_steps=steps)

    assert [warmup(full=True), warmup(), warmup(steps=320)] == [400, 5, 2]
    own = {"schedule.warmup_steps": 80}
    assert [warmup(overrides=own), warmup(overrides=own, steps=400)] == [80, 40]


@pytest.mark.parametrize(
    ("length", "durations", "percent"),
    [
        ({"train.length_steps": 50}, {"boundaries_steps": (10, 40)}, (20.0, 80.0)),
        ({"train.length_epochs": 20.0}, {"boundaries_epochs": (5, 15)}, (25.0, 75.0)),
        ({"train.length_steps": 50}, {"boundaries_examples": (160, 400)}, (20.0, 50.0)),
        ({"train.length_examples": 800}, {"boundaries_steps": 10}, 20.0),
        ({"train.length_epochs": 20.0}, {"boundaries_steps": (20, 60)}, (25.0, 75.0)),
        ({"train.length_steps": 80}, {"boundaries_epochs": (5, 15)}, (25.0, 75.0)),
        ({"train.length_steps": 50}, {"boundaries_percent": (50, 75)}, (50, 75)),
    ],
)
def test_durations_in_every_unit_scale(length, durations, percent):
    """64 examples of an epoch in batches of 16."""
    schedule = {"name": "step", "learning_rate": 0.1, **durations}
    study = Study("t", {**TINY.base, **length, "schedule": schedule}, TINY.runs)
    config = plan.make_jobs(study, steps=40, examples=64)[0].config
    assert config.schedule.boundaries_percent == percent
    assert [f for f in config.schedule if f.startswith("boundaries")] == ["boundaries_percent"]


def test_a_plan_is_checked_before_its_first_run(tmp_path, capsys):
    late = {"schedule": {"name": "constant", "learning_rate": 0.1, "warmup_steps": 21}}
    study = Study("t", TINY.base, (*TINY.runs, Run("late", late)))
    with pytest.raises(ValueError, match="late_seed0: warm-up in steps is 21"):
        console.run(study, tmp_path / "w", full=True, seeds=1)
    assert not (tmp_path / "w").exists()
    # a directory that holds another run is found before the first run, too
    taken = plan.make_jobs(TINY)[1]
    other = copy.deepcopy(taken.config)
    other.train.batch_size = 8
    write_manifest(_made(tmp_path / "v" / taken.name), other, {})
    with pytest.raises(ValueError, match=r"tanh_seed0: .* another run: train\.batch_size"):
        console.run(TINY, tmp_path / "v", full=True, seeds=1)
    assert [path.name for path in (tmp_path / "v").iterdir()] == [taken.name]


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_what_fails_later_is_named_and_the_others_are_drawn(tmp_path, capsys):
    """A file where a run's checkpoints go, another's loss that is not finite."""
    hot = {"schedule": {"name": "constant", "learning_rate": 1e6}}
    study = Study("t", TINY.base, (Run("blocked", {}), Run("hot", hot), TINY.runs[0]))
    (_made(tmp_path / "blocked_seed0") / "checkpoints").write_text("in the way")
    assert console.run(study, tmp_path, full=True, seeds=1) == 3
    printed = capsys.readouterr().out
    assert "blocked_seed0 failed: " in printed and "hot_seed0 failed: " in printed
    table = (tmp_path / "table.txt").read_text()
    assert "relu" in table and "blocked_seed0 failed: " in table
    found = json.loads((tmp_path / "results.json").read_text())
    assert sorted(found["failed"]) == ["blocked_seed0", "hot_seed0"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_measured_costs_are_those_of_a_run():
    """Also of a run that will diverge."""
    costs = plan.measure(TINY, overrides={"schedule.learning_rate": 1e6})
    assert len(costs) == 2 and costs[0].step == costs[1].step
    assert costs[0].fixed > costs[0].step > 0


def test_carried_out_once_and_taken_up_again(tmp_path, capsys):
    jobs = plan.make_jobs(TINY)
    outcomes = execute.in_turn(jobs, tmp_path)
    assert next(outcomes) == (jobs[0], "")
    assert [execute.is_finished(job, tmp_path) for job in jobs] == [True, False]
    # cut off within the second run: it goes on where it was, and the first is left alone
    seen = []

    def stop_at_10(report):
        seen.append(report.step)
        if report.kind == "checkpoint" and report.step >= 10:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        execute.run_job(jobs[1], tmp_path, stop_at_10)
    before = (tmp_path / jobs[0].name / "metrics.jsonl").stat().st_mtime_ns
    how = {"full": True, "minutes": 1, "seeds": 1, "overrides": {}, "jobs_at_once": 1}
    assert console.run(TINY, tmp_path, executor="local", gpus=0, **how) == 0
    assert (tmp_path / jobs[0].name / "metrics.jsonl").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "2 runs, 1 of them already finished" in printed and "relu_seed0" not in printed
    steps = [row["step"] for row in results.read_rows(tmp_path / jobs[1].name)]
    assert steps == sorted(steps) and steps[-1] == 20
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["run"] for row in found["rows"]] == ["relu", "tanh"]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="contains a study with other settings"):
        console.run(TINY, tmp_path, executor="local", gpus=0, **how | {"seeds": 2})


def test_seeds_at_once_are_those_one_after_another(tmp_path):
    study = Study("t", TINY.base, TINY.runs[:1], seeds=2)
    curves = []
    for together in (False, True):
        folder = tmp_path / str(together)
        jobs = plan.make_jobs(study, full=True, together=together)
        assert [job.name for job in jobs] == (
            ["relu"] if together else ["relu_seed0", "relu_seed1"]
        )
        assert all(failure == "" for _, failure in execute.in_turn(jobs, folder))
        assert all(execute.is_finished(job, folder) for job in jobs)
        curves += results.read_curves(study, jobs, folder)
    apart, at_once = curves
    assert len(at_once.test) == 2
    np.testing.assert_array_equal(apart.test, at_once.test)
    np.testing.assert_array_equal(apart.train, at_once.train)
    (folder / "relu" / "member_1" / "metrics.jsonl").unlink()
    assert not execute.is_finished(jobs[0], folder)


def test_a_failed_run_does_not_end_the_study(tmp_path):
    hot = {"schedule": {"name": "constant", "learning_rate": 1e6}}
    study = Study("t", TINY.base, (Run("hot", hot), TINY.runs[0]))
    outcomes = list(execute.in_turn(plan.make_jobs(study), tmp_path))
    assert "not finite" in outcomes[0][1] and outcomes[1][1] == ""


def test_table_and_curves(tmp_path):
    """Two seeds of known errors; a third has only begun and counts where all have rows."""
    study = Study("t", TINY.base, TINY.runs[:1], seeds=2)
    jobs = plan.make_jobs(study, full=True)
    for job, errors in zip(jobs, ((0.5, 0.25), (0.3, 0.15))):
        (tmp_path / job.name).mkdir()
        rows = [
            {
                "kind": "eval",
                "step": step,
                "epoch": 1.0,
                "loss": 1.0,
                "top1_error": error,
                "train_top1_error": error / 2,
            }
            for step, error in zip((10, 20), errors)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / job.name / "metrics.jsonl").write_text(text)
    (curve,) = results.read_curves(study, jobs, tmp_path)
    np.testing.assert_allclose(curve.test, [[50, 25], [30, 15]])
    (row,) = results.table([curve])
    assert row["test_error"] == pytest.approx(20) and row["train_error"] == pytest.approx(10)
    assert row["test_error_std"] == pytest.approx(np.sqrt(50))
    assert "20.00 ± 7.07       3.00" in results.text_table([row])


@pytest.mark.parametrize(
    ("places", "scale"),
    [((0.003, 0.01, 0.03), "log"), ((10, 16, 28), "linear"), ((0, 9), "linear")],
)
def test_values_of_several_sizes_stand_apart(places, scale):
    runs = [Run(str(place), {}, x=place) for place in places]
    errors = np.full((1, 1), 10.0)
    curves = [results.Curve(run, np.array([5]), errors, errors) for run in runs]
    axes = make_figure(4, 4).subplots()
    results._draw_against_x(axes, Study("t", {}, runs, x="rate"), curves)
    assert axes.get_xscale() == scale
    if scale == "log":
        assert [label.get_text() for label in axes.get_xticklabels()] == list(map(str, places))


def test_points_of_several_panels_are_not_joined(tmp_path):
    placed = (("a", 10), ("a", 28), ("b", 10), ("b", 28))
    runs = [Run(f"_{panel}${x}", {}, panel=panel, x=x) for panel, x in placed]
    ones = np.ones((1, 1))
    curves = [results.Curve(run, np.array([5]), ones, ones) for run in runs]
    axes = make_figure(4, 4).subplots()
    results._draw_against_x(axes, Study("t", {}, runs, x="depth"), curves)
    drawn = [list(bars.lines[0].get_xdata()) for bars in axes.containers]
    assert drawn == [[10, 28]] * 4
    labels = [bars.get_label() for bars in axes.containers]
    assert labels == ["train, a", "test, a", "train, b", "test, b"]
    results.draw(Study("a $x_$ b", {}, runs), curves, tmp_path / "figure.png")  # no mathematics


@pytest.mark.parametrize("metric", ["loss", "ema_top1_error"])
def test_only_errors_are_compared(metric):
    with pytest.raises(ValueError, match=f"the metric of a study is '{metric}'"):
        Study("t", {}, [], metric=metric)


def test_settings_of_cardinality_cost_the_same():
    costs = []
    for run in load_study("cardinality").runs:
        config = make_config({"model.name": "resnext29_8x64d_cifar"}, run.overrides)
        model = create_model(config.model.name, **config.model.options)
        costs.append(summarize(model, 32).total("macs"))
    assert max(costs) < 1.06 * min(costs)


def test_own_study_from_a_file_and_mistakes(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent("""
        from jaxcnn.studies import Run, Study

        def get_study():
            base = {"model.name": "lenet5", "train.length_epochs": 2.0}
            runs = [Run(f"pool {p}", {"model.options.pool": p}) for p in ("max", "avg")]
            return Study(title="Pooling", base=base, runs=runs)
        """)
    )
    config = plan.make_jobs(load_study(str(path)))[1].config
    assert config.model.options.pool == "avg" and config.eval.every_percent == 5
    rarely = {"eval.every_steps": 30, "checkpoint.every_epochs": 1.0}
    config = plan.make_jobs(load_study(str(path)), overrides=rarely)[0].config
    assert (config.eval.every_steps, config.eval.every_percent) == (30, None)
    assert (config.checkpoint.every_epochs, config.checkpoint.every_percent) == (1, None)
    for arguments, text in (
        (["residual_vs_plane"], "did you mean 'residual_vs_plain'"),
        ([str(tmp_path / "no.py")], "no study file"),
        (["dropout", "train.batch_sise=3"], "did you mean 'train.batch_size'"),
        (["dropout", "--budget", "0"], "--budget is 0; it must be above 0"),
        (["dropout", "--budget", "inf"], "--budget is inf; it must be above 0 and finite"),
        (["dropout", "--seeds", "-1"], "--seeds is -1; it must be 1 or more"),
        (["dropout", "--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        (["dropout", "--gpus", "1"], "--gpus is 1; it is for --executor ray"),
        (["dropout", "--jobs", "2", "--executor", "ray"], "--jobs is 2; with --executor ray"),
        (["dropout", "train.seed=7"], "train.seed cannot be set in a study; --seeds N runs"),
        (["dropout", "train.length_epochs=3"], "train.length_epochs can only be set with --full"),
    ):
        assert main(["ablate", *arguments]) == 2
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
    with pytest.raises(ValueError, match=r"executor is 'slurm'; it must be one of local, ray"):
        console.run(TINY, tmp_path / "x", executor="slurm")
    plan.check_overrides({"train.length_epochs": 3.0}, full=True)
    with pytest.raises(ValueError, match=r"unknown field config\.train\.batch;"):
        make_config({"train.batch": 3})
    assert read_overrides(["train.batch_size=64"]) == {"train.batch_size": 64}
    whole = read_overrides(["model.options={'width': 8}"])
    assert make_config(whole).model.options.to_dict() == {"width": 8}
    path.write_text("x = 1")
    with pytest.raises(ValueError, match="has no get_study"):
        load_study(str(path))
    for text, message in (
        ("return {'runs': []}", "does not return a jaxcnn.studies.Study"),
        ("return Study(title='', base={}, runs=[{}])", "is a dict, not a jaxcnn.studies.Run"),
        ("return Study(title='', base={}, run=[])", f"{path}, line 3: "),
    ):
        path.write_text(f"from jaxcnn.studies import Study\ndef get_study():\n    {text}")
        assert main(["ablate", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    path.write_text("def get_study(:")
    assert main(["ablate", str(path)]) == 2
    assert f"{path}, line 1: " in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes(tmp_path):
    jobs = plan.make_jobs(TINY)
    outcomes = list(execute.in_processes(jobs, tmp_path, 2))
    assert sorted(job.name for job, failure in outcomes if not failure) == [j.name for j in jobs]
    assert all(execute.is_finished(job, tmp_path) for job in jobs)


def test_no_run_begins_after_the_caller_has_gone(tmp_path, monkeypatch):
    """As after Ctrl-C: what a process has begun ends, and nothing else begins."""
    monkeypatch.setattr(execute, "run_job", leave_a_mark)
    outcomes = execute.in_processes(["a", "b", "c"], tmp_path, 1)
    assert next(outcomes) == ("a", "")
    outcomes.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_more_runs_than_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "run_job", leave_a_mark)
    assert sorted(execute.in_processes("abc", tmp_path, 2)) == [("a", ""), ("b", ""), ("c", "")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_labels_that_make_one_directory_are_refused(tmp_path):
    study = Study("t", TINY.base, [Run("α = 0.1", {}), Run("β = 0.1", {})])
    with pytest.raises(ValueError, match=r"'α = 0.1' and 'β = 0.1' have the same directory"):
        plan.check(plan.make_jobs(study), tmp_path)
