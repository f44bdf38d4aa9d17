"""The loop: everything with a side effect, around the pure step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import metrics
from jaxcnn.reporting import curves, samples
from jaxcnn.reporting.report import Report
from jaxcnn.runtime import distributed
from jaxcnn.training import clock as timing
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Setup
from jaxcnn.training.clock import Clock
from jaxcnn.training.config import Recorded, leaves, validate
from jaxcnn.training.guard import nonfinite, preflight
from jaxcnn.training.input import loaders
from jaxcnn.training.optim import schedules
from jaxcnn.training.output import checkpoints, profiling, wandb
from jaxcnn.training.output.checkpoints import Checkpoints
from jaxcnn.training.output.metrics_files import MetricsFiles, read_rows, score
from jaxcnn.training.output.profiling import Trace
from jaxcnn.training.output.wandb import WandbRows
from jaxcnn.training.output.workdir import BEST, CHECKPOINTS, claim, write_manifest
from jaxcnn.training.parts import Ask, Parts
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import run_keys
from jaxcnn.training.warm_start import with_layers, with_trunk

_PREDICTED = 1000  # held-out examples that `predictions.png` is drawn from


def train(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Iterator[Report]:
    """Trains as the configuration says, and yields a report of each thing that happens.

    Everything is checked before workdir is touched. SIGTERM or Ctrl-C ends the run at the
    next step with a checkpoint; `resume` goes on from there, or from the newest checkpoint after a
    kill, and ends in the same bits as an undisturbed run.

    Args:
      config: see `jaxcnn.training.config.default_config`.
      workdir: directory for checkpoints, metrics and figures.
      resume: go on with the run that it holds; begin if it holds none.
      overwrite: delete the run that it holds.

    Yields:
      `Report`s; the last is "end" or "stopped".

    Raises:
      ValueError: the configuration, the data or the directory cannot be used, or an evaluation did
        not count every example once.
      FloatingPointError: the loss or a gradient was not finite; the text names the step, what
        was not finite, and the first layer where.
    """
    validate(config)
    if config["train"]["members"]:
        from jaxcnn.training.ensemble.members import train_members

        yield from train_members(config, workdir, resume=resume, overwrite=overwrite)
    else:
        yield from train_one(config, workdir, resume=resume, overwrite=overwrite)


def train_one(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    parts: Parts = Parts(),  # noqa: B008
) -> Generator[Any, Any, None]:
    """`train` of one run; `parts` may be shared with others, and an `Ask` is yielded as it is."""
    clock = Clock()
    fields = Recorded(config)
    setup = parts.make_setup(fields)
    seeds = (fields.train[name] for name in ("seed", "init_seed", "dropout_seed"))
    init_key, key = run_keys(*seeds)
    keep, seed = fields.checkpoint.keep, fields.train.seed
    preflight.check(setup, seed)
    wandb.check(fields.log.wandb)
    facts = _facts(setup, fields)
    directory = claim(workdir, config, resume=resume, overwrite=overwrite)
    stop_at = distributed.Agreement(lambda: stop.received)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(parts.stop())
        newest = stack.enter_context(Checkpoints(directory / CHECKPOINTS, keep))
        best = stack.enter_context(Checkpoints(directory / BEST, 1))

        # Where the run stands.
        found = newest.restore_newest(checkpoints.abstract(setup.shapes, setup.mesh))
        sums: dict[str, Any] = {"log": {}, "eval": {}}
        if found is None:
            step, state = 0, _begin(setup, fields, parts, init_key)
            notices = ["there is no checkpoint to go on from: the run begins"] if resume else []
        else:
            step, state, sums, notices = found
            state = parallel.place_state(state, setup.mesh)
        best.delete_after(step)
        files = MetricsFiles(
            directory, after=step if resume else None, write=distributed.is_first()
        )
        stack.callback(files.close)
        if distributed.is_first():
            write_manifest(directory, config, facts)
            if fields.log.wandb is not None:
                files.wandb = WandbRows(fields.log.wandb, directory, leaves(config))
        yield Report("start", step, setup.epoch(step), facts)
        if setup.steps_per_call > 1 and facts["platform"] == "cpu":
            notices.append("several steps in a call are several times slower on a CPU than one")
        for text in notices:
            yield Report("notice", step, setup.epoch(step), {"text": text})

        # Compile first: what does not fit in memory is found now.
        feed = loaders.open_train(setup, seed, step, directory)
        stack.callback(feed.close)
        run_steps, compiled = parts.compile_train(setup, state, step, key, feed)
        evaluate = parts.make_evaluate(setup)
        yield Report("compiled", step, setup.epoch(step), compiled)

        def settle(first: int, last: int, fetched_later: Any) -> Iterator[Report]:
            """Fetches and sums the metrics of the steps first+1..last, and writes a row if due."""
            fetched = jax.device_get(fetched_later)
            clock.finished(last - first)
            if clock.first_step is None:
                clock.first_step = clock.elapsed()
                seconds = {"first_step_seconds": clock.first_step}
                yield Report("first_step", last, setup.epoch(last), seconds)
            if bad := nonfinite.describe(fetched, first):
                yield from find_layer(*bad)
            for name, so_far in sums.items():
                sums[name] = metrics.combine([so_far, fetched])
            values = metrics.finalise(metrics.combine([fetched]))
            yield Report("step", last, setup.epoch(last), _without_finite(values))
            if last // setup.every_log > first // setup.every_log:
                # First the speed: what is computed for the row waits for the next step's end.
                row = clock.take_steps(setup.batch_size) | feed.waited() | timing.device_memory()
                rate = schedules.learning_rate(setup.rate, state.opt_state, last - 1)
                row |= _without_finite(metrics.finalise(sums["log"]))
                row["learning_rate"] = float(rate)
                sums["log"] = {}
                files.write("train", last, setup.epoch(last), row)
                yield Report("train", last, setup.epoch(last), row)

        def find_layer(bad: int, what: str) -> Iterator[Report]:
            """Raises FloatingPointError that says where the step that went wrong did."""
            if not parts.alone:
                raise FloatingPointError(what)
            newest.wait()
            found = newest.restore_newest(checkpoints.abstract(setup.shapes, setup.mesh))
            at, again = (0, _begin(setup, fields, parts, init_key)) if found is None else found[:2]
            text = f"{what}; making steps {at + 1} to {bad} again, to find the layer"
            yield Report("notice", bad, setup.epoch(bad), {"text": text})

            def observe(state: TrainState, step: int) -> TrainState:
                if fields.schedule["name"] != "plateau" or not setup.is_due(setup.every_eval, step):
                    return state
                return _observe(setup, fields, state, evaluate(state)["top1_error"])

            again = parallel.place_state(again, setup.mesh)
            again = nonfinite.make_again(at, again, bad - 1, setup, run_steps, observe)
            where = nonfinite.first_bad(setup, again, feed.batch(bad - 1, 1), key)
            raise FloatingPointError(f"{what}: {where}")

        trace = Trace(directory / profiling.FOLDER, fields.log.profile)
        stack.callback(trace.close)
        clock.begin_steps()
        late = None  # metrics are fetched one call late, so that the device never waits for them
        while step < setup.total_steps and not (signal := stop_at.reached()):
            count, boundary = setup.steps_at_once(step), setup.next_boundary(step)
            made = run_steps(state, step, count)
            state, out = (yield made) if isinstance(made, Ask) else made
            if told := trace.after_call(out):
                yield Report("notice", step, setup.epoch(step), {"text": told})
            if late:
                yield from settle(*late)
            late = step, step + count, out
            step += count
            if step < boundary:
                continue
            yield from settle(*late)
            late = None
            if told := feed.notice():
                yield Report("notice", step, setup.epoch(step), {"text": told})
            if setup.is_due(setup.every_eval, step):
                with clock.on(timing.EVALUATION):
                    row = evaluate(state) | _training_means(sums)
                if not np.isfinite(row["loss"]):
                    raise FloatingPointError(f"the test loss is not finite after step {step}")
                improved = files.best is None or score(row) < files.best
                row["eval_seconds"] = clock.take(timing.EVALUATION)
                row["checkpoint_seconds"] = clock.take(timing.CHECKPOINTS)
                files.write("eval", step, setup.epoch(step), row)
                yield Report("eval", step, setup.epoch(step), row)
                state = _observe(setup, fields, state, row["top1_error"])
                if improved:
                    with clock.on(timing.CHECKPOINTS):
                        best.save(state, step, {})
                    yield Report("checkpoint", step, setup.epoch(step), {"best": True})
            if setup.is_due(setup.every_checkpoint, step):
                with clock.on(timing.CHECKPOINTS):
                    newest.save(state, step, sums)
                yield Report("checkpoint", step, setup.epoch(step), {"best": False})

        if late:
            yield from settle(*late)
        clock.take_steps(setup.batch_size)
        with clock.on(timing.CHECKPOINTS):
            newest.save(state, step, sums)
            newest.wait()
            best.wait()
        if step < setup.total_steps:
            yield Report("stopped", step, setup.epoch(step), {"signal": signal})
            return
        rows = read_rows(directory)
        if distributed.is_first():
            curves.plot_curves(rows, directory / curves.CURVES, facts["model"])
            _plot_predictions(setup, state, directory / samples.PREDICTIONS)
        if fields.unread():
            text = f"nothing read config.{', config.'.join(fields.unread())}"
            yield Report("notice", step, setup.epoch(step), {"text": text})
        values = {k: v for k, v in rows[-1].items() if k not in ("kind", "step", "epoch")}
        values |= {"seconds": clock.elapsed(), "time_shares": clock.shares()}
        yield Report("end", step, setup.epoch(step), values)


def _begin(setup: Setup, fields: Recorded, parts: Parts, key: jax.Array) -> TrainState:
    """The state before the first step, on the mesh."""
    state = parts.begin(setup, key)
    if setup.weights and fields.model.weights_only is not None:
        state = with_layers(state, setup.weights, fields.model.weights_only)
    elif setup.weights:
        state = with_trunk(state, setup.weights, fields.model.name, dict(fields.model.options))
    return parallel.place_state(state, setup.mesh)


def _without_finite(means: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in means.items() if name != "finite"}


def _training_means(sums: dict[str, Any]) -> dict[str, float]:
    """Takes the means of the steps since the last evaluation, as `train_...`."""
    means = metrics.finalise(sums["eval"])
    sums["eval"] = {}
    return {f"train_{name}": means[name] for name in ("loss", "top1_error", "top5_error")}


def _observe(setup: Setup, fields: Recorded, state: TrainState, error: float) -> TrainState:
    """Tells a plateau schedule the error."""
    opt_state = schedules.observe(fields.schedule, state.opt_state, jnp.float32(error))
    if fields.schedule["name"] != "plateau":
        return state
    return parallel.place_state(dataclasses.replace(state, opt_state=opt_state), setup.mesh)


def _plot_predictions(setup: Setup, state: TrainState, path: Path) -> None:
    predicted = engine.predict(setup, parallel.on_this_host(state), _PREDICTED)
    images, labels = loaders.first_examples(setup, _PREDICTED)
    samples.plot_predictions(images, labels, predicted, setup.test_set.class_names, path)


def _facts(setup: Setup, fields: Recorded) -> dict[str, Any]:
    sizes = jax.tree.map(lambda leaf: int(np.prod(leaf.shape)), setup.shapes.params)
    return {
        "model": fields.model.name,
        "params": sum(jax.tree.leaves(sizes)),
        "source": fields.data.source,
        "train_examples": len(setup.train_set),
        "test_examples": len(setup.test_set),
        "batch_size": setup.batch_size,
        "total_steps": setup.total_steps,
        "total_epochs": setup.epoch(setup.total_steps),
        "seed": fields.train.seed,
        "device_count": setup.mesh.size,
        "process_count": distributed.count(),
        "platform": setup.mesh.devices.flat[0].platform,
        "parallel": setup.mode,
        "batch_norm_examples": setup.bn_examples,
    }
