"""The training loop: everything with a side effect, around the pure step."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import metrics
from jaxcnn.reporting import curves, samples
from jaxcnn.reporting.report import Report
from jaxcnn.runtime import distributed
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training import clock as timing
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Experiment, build_experiment
from jaxcnn.training.clock import Clock
from jaxcnn.training.config import TrackedConfig, leaves
from jaxcnn.training.guard import nonfinite, preflight
from jaxcnn.training.input import loaders
from jaxcnn.training.optim import schedules
from jaxcnn.training.output import checkpoints, profiling, trackers, workdir
from jaxcnn.training.output.metrics_files import MetricsFiles, read_rows, score
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import run_keys
from jaxcnn.training.warm_start import open_weights, with_backbone, with_layers

Batch = Mapping[str, Any]
_BEGINS = "no checkpoint found; starting from step 0"
_PREDICTED = 1000  # held-out examples that `predictions.png` is drawn from


@dataclasses.dataclass(frozen=True)
class Engine:
    """The compiled functions of a run; runs that are trained together share them.

    Attributes:
      init: key of the initialization to the state before the first step.
      train_step: (state, batch, key) to (state, metrics); None for the runs of an ensemble whose
        steps are computed together.
      eval_step: (state, batch) to (sum, count) pairs.
      eval_batches: returns an iterator over one pass of the test set.
      placed: see `loaders.train_loader`.
    """

    init: Callable[[jax.Array], TrainState]
    train_step: engine.TrainStep | None
    eval_step: Callable[[TrainState, Batch], engine.Pairs]
    eval_batches: Callable[[], Iterator[Batch]]
    placed: dict[str, Any] | None = None


def make_engine(experiment: Experiment) -> Engine:
    """Makes the compiled functions of a run that is trained alone."""
    return Engine(
        init=engine.make_init(experiment),
        train_step=engine.compile_train_step(experiment),
        eval_step=engine.compile_eval_step(experiment),
        eval_batches=loaders.eval_loader(experiment),
    )


def train_one(config: Mapping[str, Any], directory: str | Path, **options: Any) -> Iterator[Report]:
    """Trains one run and yields its reports; `options` are those of `Run`."""
    with Run(config, directory, **options) as run:
        yield from run.begin()
        while not run.finished():
            batch = run.next_batch()
            run.state, train_metrics = run.train_step(run.state, batch)
            yield from run.after_step(train_metrics)
        yield from run.end()


class Run:
    """One run: its state, and everything that happens around its steps.

    The constructor checks the configuration, the data and the network, and writes nothing;
    `__enter__` opens the directory. `train_one` shows the order of the calls. Methods that return
    an iterator of `Report`s do their work while the iterator is consumed.

    Args:
      config: see `jaxcnn.training.config.default_config`.
      directory: directory for checkpoints, metrics and figures.
      resume: continue the run in `directory`; start a new one if there is none.
      overwrite: delete the run in `directory`, then start a new one.
      extend: with `resume`, allow a different length.
      stop: records signals to stop.
      experiment: the experiment, for runs that are trained together; built from `config` if None.
      engine: the compiled functions, for runs that are trained together; made if None.
      traced: whether to trace the calls that `log.profile` asks for. JAX traces one run at a time.

    Attributes:
      state: the training state; the caller updates it after each step.
      step: number of completed steps.
      key: the key of the run; each step folds in the step number.

    Raises:
      ValueError: the configuration, the data or the network cannot be used.
    """

    state: TrainState

    def __init__(
        self,
        config: Mapping[str, Any],
        directory: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        extend: bool = False,
        stop: StopSignals | None = None,
        experiment: Experiment | None = None,
        engine: Engine | None = None,
        traced: bool = True,
    ):
        self.clock = Clock()
        with self.clock.on(timing.SETUP):
            self.experiment = experiment or build_experiment(TrackedConfig(config))
            self.config, self.calendar = self.experiment.config, self.experiment.calendar
            self.engine = engine or make_engine(self.experiment)
            preflight.check(self.experiment)
            trackers.check(self.config.log.wandb)
            self._options = {"resume": resume, "overwrite": overwrite, "extend": extend}
            self.directory = workdir.check_workdir(directory, config, **self._options)
            total = self.calendar.total_steps
            self._old_length = workdir.previous_length(self.directory, total) if extend else total
        self._original_config = config
        self.step = 0
        train = self.config.train
        self._init_key, key = run_keys(train.seed, train.init_seed, train.dropout_seed)
        self.key = parallel.place_state(key, self.experiment.mesh)
        stop = stop or StopSignals()
        self._stop = distributed.AgreedStop(lambda: stop.received)
        self._signal: str | None = None
        schedule = self.config.schedule
        self._plateau = schedule if schedule.get("name") == "plateau" else None
        # Read here, so that a resumed run does not report these fields as unused.
        self._weights, self._weights_only = (
            self.config.model.weights,
            self.config.model.weights_only,
        )
        self._test_examples = len(self.experiment.test_set)
        self._sums: dict[str, Any] = {"log": {}, "eval": {}}
        # Metrics are fetched one call late, so that the device never waits for the host.
        self._late: tuple[int, int, Any] | None = None
        self._prefetched: Batch | None = None
        self._compiled: Mapping[str, Any] = {}
        self._traced = traced
        self._trace: profiling.Trace | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Run:
        with self.clock.on(timing.SETUP), contextlib.ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()
        _OPEN_RUNS.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        _OPEN_RUNS.discard(self)
        self._opened.__exit__(kind, *error)

    def close(self) -> None:
        """Stops all background work; nothing more is saved."""
        self.__exit__(None, None, None)

    def _open(self, opened: contextlib.ExitStack) -> None:
        """Opens the directory and its files, and restores the state of a resumed run."""
        resume = self._options["resume"]
        # Before anything is written, since the initial weights may not fit the network.
        first = None if self._resumes() else self._initial_state()
        directory, keep = self.directory, self.config.checkpoint.keep
        self._check_lock = opened.enter_context(workdir.lock(directory))
        workdir.open_workdir(directory, self._original_config, self._facts(), **self._options)
        newest, best = directory / workdir.CHECKPOINTS, directory / workdir.BEST
        self._newest = opened.enter_context(
            workdir.open_checkpoints(newest, keep, self._check_lock)
        )
        self._best = opened.enter_context(workdir.open_checkpoints(best, 1, self._check_lock))
        self._notices = self._restore(first) if resume else []
        if resume:  # not before, so that a run that cannot go on stays as it is
            workdir.update_manifest(directory, self._original_config, self._facts())
        if first is not None and not resume:
            self.state = first
        self._notices += self._extension_notices()
        self._best.delete_after(self.step)
        self._files = MetricsFiles(
            directory,
            after=self.step if resume else None,
            evaluated=not self._evaluation_is_due(),
            write=distributed.is_first(),
            check=self._check_lock,
        )
        opened.callback(self._files.close)
        self._notices += self._save_lost_best()
        project = self.config.log.wandb
        if distributed.is_first() and project is not None:
            self._files.wandb = trackers.WandbRows(project, directory, leaves(self.config))
        self._loader = loaders.train_loader(
            self.experiment, self.step, directory, self.engine.placed
        )
        opened.callback(self._loader.close)
        calls = self.config.log.profile
        if calls and self._traced:
            self._trace = profiling.Trace(directory / profiling.FOLDER, calls)
            opened.callback(self._trace.close)

    def _resumes(self) -> bool:
        return self._options["resume"] and workdir.has_checkpoints(self.directory)

    def check_weights(self) -> None:
        """Raises an error if the initial weights cannot be loaded."""
        if self._weights and not self._resumes():
            self._initial_state()

    def _restore(self, first: TrainState | None) -> list[str]:
        """Restores the newest readable checkpoint; returns notices for the user.

        Without checkpoints the state is `first`, or a new initial state if `first` is None.
        """
        restored = self._newest.restore_newest(self._shapes())
        if restored is None:
            self.state = first or self._initial_state()
            return [_BEGINS]
        self.step, state, self._sums, notices = restored
        self.state = parallel.place_state(state, self.experiment.mesh)
        return notices

    def _extension_notices(self) -> list[str]:
        """Returns a notice if the length of the run has changed."""
        before, total = self._old_length, self.calendar.total_steps
        if before == total:
            return []
        verb = "extended" if before < total else "shortened"
        return [
            f"{verb} from {before:,} to {total:,} steps; the learning rate follows the schedule of "
            f"{total:,} steps from step {self.step:,} on"
        ]

    def _shapes(self) -> Any:
        return checkpoints.abstract(self.experiment.shapes, self.experiment.mesh)

    def _save_lost_best(self) -> list[str]:
        """Saves the best checkpoint again if a kill interrupted its first save.

        The state comes from the checkpoints to resume from. Returns notices for the user.
        """
        scores, saved = self._files.scores, self._best.steps()
        candidates = {step for step in (*saved, *self._newest.steps()) if step in scores}
        for step in sorted(candidates, key=lambda step: (scores[step], step)):
            if step in saved:
                break
            with contextlib.suppress(Exception):  # this checkpoint cannot be read
                state = self.state
                if step != self.step:
                    state = self._newest.restore(step, self._shapes())[0]
                self._best.save(state, step, {})
                self._best.wait()
                return [f"the best checkpoint, of step {step}, was missing and is saved again"]
        return []

    def _initial_state(self) -> TrainState:
        """Returns the state before the first step, on the mesh."""
        model, std = self.config.model, self.experiment.train_set.std
        only, weights = self._weights_only, None
        if self._weights:  # before the initialization, which takes longer, may fail
            weights = open_weights(self._weights, None if only is not None else model.name)
        state = self.engine.init(self._init_key)
        if weights and only is not None:
            state = with_layers(state, weights, only, std)
        elif weights:
            state = with_backbone(state, weights, model.name, dict(model.options), std)
        if weights:  # some optimizers, such as Prodigy, keep the initial parameters
            opt_state = self.experiment.optimizer.init(state.params)
            state = dataclasses.replace(state, opt_state=opt_state)
        return parallel.place_state(state, self.experiment.mesh)

    def _facts(self) -> dict[str, Any]:
        """Returns the facts about the run for the manifest and the start report."""
        experiment, calendar = self.experiment, self.calendar
        sizes = jax.tree.map(lambda leaf: int(np.prod(leaf.shape)), experiment.shapes.params)
        return {
            "model": self.config.model.name,
            "params": sum(jax.tree.leaves(sizes)),
            "source": self.config.data.source,
            "examples": {
                "train": experiment.train_set.digest,
                "test": experiment.test_set.digest,
            },
            "train_examples": len(experiment.train_set),
            "test_examples": len(experiment.test_set),
            "batch_size": calendar.batch_size,
            "total_steps": calendar.total_steps,
            "total_epochs": calendar.epoch(calendar.total_steps),
            "seed": self.config.train.seed,
            "device_count": experiment.mesh.size,
            "process_count": distributed.count(),
            "platform": experiment.mesh.devices.flat[0].platform,
            "parallel": experiment.mode,
            "batch_norm_examples": experiment.batch_norm_examples
            if jax.tree.leaves(experiment.shapes.batch_stats)
            else None,
        }

    def _report(self, kind: str, values: Mapping[str, Any], step: int | None = None) -> Report:
        step = self.step if step is None else step
        return Report(kind, step, self.calendar.epoch(step), values)

    def _notice(self, text: str) -> Report:
        return self._report("notice", {"text": text})

    def begin(self) -> Iterator[Report]:
        """Reports the start and compiles the step, which fails here if memory does not suffice."""
        facts = self._facts()
        yield self._report("start", facts)
        if self.calendar.steps_per_call > 1 and facts["platform"] == "cpu":
            self._notices.append("several steps in a call are several times slower on a CPU")
        if unused := self.config.unread():
            self._notices.append(f"unused config fields: {', '.join(unused)}")
        yield from map(self._notice, self._notices)
        compiled: dict[str, Any] = {"seconds": 0.0}
        train_step = self.engine.train_step
        if train_step is not None and self.step < self.calendar.total_steps:
            with self.clock.on(timing.COMPILING):
                compiled = engine.step_cost(self.experiment)
                self._prefetched = self.next_batch()
                compiled |= train_step.compile(self.state, self._prefetched, self.key)
            self._compiled = compiled
        yield self._report("compiled", compiled)
        if self._evaluation_is_due():
            yield from self._evaluate()
            self._newest.delete_after(self.step - 1)  # it was saved before the evaluation
            self._save_newest()
        self.clock.begin_steps()

    def finished(self) -> bool:
        """Whether all steps are complete, or a signal requested a stop."""
        if self.step < self.calendar.total_steps and self._signal is None:
            self._signal = self._stop.reached()
        return self.step >= self.calendar.total_steps or self._signal is not None

    def next_batch(self) -> Batch:
        """Returns the batch of the next call, on the device; stacked if it has several steps."""
        if self._prefetched is None:
            return self._loader.batch(self.step, self.calendar.steps_at_once(self.step))
        batch, self._prefetched = self._prefetched, None
        return batch

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, engine.Pairs]:
        """Computes one step: (state after it, metrics). The memory of `state` is reused."""
        assert self.engine.train_step is not None
        return self.engine.train_step(state, batch, self.key)

    def after_step(self, train_metrics: engine.Pairs) -> Iterator[Report]:
        """Counts the completed steps; logs, evaluates and saves checkpoints that are due."""
        first = self.step
        last = first + self.calendar.steps_at_once(first)
        if self._trace is not None and (text := self._trace.after_call(train_metrics)):
            yield self._notice(text)
        self._newest.check()
        self._best.check()
        yield from self._log_late_metrics()
        self._late, self.step = (first, last, train_metrics), last
        if last < self.calendar.next_boundary(first):
            return
        self._check_lock()
        yield from self._log_late_metrics()
        if text := self._loader.notice():
            yield self._notice(text)
        if self.calendar.evaluates(last):
            try:
                yield from self._evaluate()
            except Exception:  # such as a test image that cannot be read
                if self._evaluation_is_due() and distributed.count() == 1:
                    with contextlib.suppress(Exception):
                        self._save_newest()
                        self._newest.wait()
                        yield self._notice(
                            f"the evaluation failed; step {last} is saved, and --resume repeats it"
                        )
                raise
        if self.calendar.saves(last):
            with self.clock.on(timing.CHECKPOINTS):
                self._save_newest()
            yield self._report("checkpoint", {"best": False})

    def end(self) -> Iterator[Report]:
        """Saves the last state, draws the figures, and reports "end" or "stopped"."""
        yield from self._log_late_metrics()
        self.clock.take_steps(self.calendar.batch_size)
        with self.clock.on(timing.CHECKPOINTS):
            self._save_newest()
            self._newest.wait()
            self._best.wait()
        if self.step < self.calendar.total_steps:
            yield self._report("stopped", {"signal": self._signal})
            return
        last = self._files.last
        if (last.get("kind"), last.get("step")) != ("eval", self.step):  # the row was lost
            last = self._test_means(self.state)
        if distributed.is_first() and not self._is_drawn():
            with self.clock.on(timing.FIGURES):
                self._draw()
        values = {k: v for k, v in last.items() if k not in ("kind", "step", "epoch")}
        values |= {"seconds": self.clock.elapsed(), "time_shares": self.clock.fractions()}
        yield self._report("end", values)

    def _log_late_metrics(self) -> Iterator[Report]:
        if self._late is not None:
            late, self._late = self._late, None
            yield from self._log_metrics(*late)

    def _log_metrics(self, first: int, last: int, train_metrics: Any) -> Iterator[Report]:
        """Fetches and sums the metrics of steps `first` + 1 to `last`; writes a row if due."""
        fetched = jax.device_get(train_metrics)
        self.clock.finished(last - first)
        if self.clock.first_step is None:
            self.clock.first_step = self.clock.elapsed()
            seconds = {"first_step_seconds": self.clock.first_step}
            yield self._report("first_step", seconds, last)
        if not np.all(fetched["finite"][0]):
            yield from self._stop_nonfinite(*nonfinite.describe(fetched, first))
        for name, sums in self._sums.items():
            self._sums[name] = metrics.combine([sums, fetched])
        values = metrics.finalize(metrics.combine([fetched]))
        yield self._report("step", _without_finite(values), last)
        if self.calendar.logs(first, last):
            # Speed first: the computations below wait until the device has finished the next step.
            row = self.clock.take_steps(self.calendar.batch_size)
            row |= self._loader.data_wait() | timing.device_memory()
            row |= _without_finite(metrics.finalize(self._sums["log"]))
            if (rate := self.experiment.learning_rate) is not None:
                now = schedules.learning_rate(rate, self.state.opt_state, last - 1)
                row["learning_rate"] = float(now)
            self._sums["log"] = {}
            self._files.write("train", last, self.calendar.epoch(last), row)
            yield self._report("train", row, last)

    def _evaluation_is_due(self) -> bool:
        """Whether the state is to be evaluated and has not been, because the evaluation failed."""
        return self.calendar.evaluates(self.step) and bool(self._sums["eval"])

    def _save_newest(self) -> None:
        self._files.flush()
        self._newest.save(self.state, self.step, self._sums)

    def _evaluate(self) -> Iterator[Report]:
        """Evaluates, writes a row, updates a plateau schedule, and saves a new best checkpoint."""
        with self.clock.on(timing.EVALUATION):
            row = self._test_means(self.state)
        means, self._sums["eval"] = metrics.finalize(self._sums["eval"]), {}
        row |= {f"train_{name}": means[name] for name in ("loss", "top1_error", "top5_error")}
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(f"the test loss is not finite after step {self.step}")
        # The score of the saved checkpoint: a kill may have lost a better one.
        best = max(self._best.steps(), default=None)
        improved = score(row) < self._files.scores.get(best, float("inf"))
        row["eval_seconds"] = self.clock.take(timing.EVALUATION)
        row["checkpoint_seconds"] = self.clock.take(timing.CHECKPOINTS)
        self._files.write("eval", self.step, self.calendar.epoch(self.step), row)
        yield self._report("eval", row)
        self.state = self._observe(self.state, row["top1_error"])
        if improved:
            with self.clock.on(timing.CHECKPOINTS):
                self._files.flush()
                self._best.save(self.state, self.step, {})
            yield self._report("checkpoint", {"best": True})

    def _test_means(self, state: TrainState) -> dict[str, float]:
        batches = self.engine.eval_batches()
        return engine.evaluate(self.engine.eval_step, state, batches, self._test_examples)

    def _observe(self, state: TrainState, error: float) -> TrainState:
        """Passes the error of an evaluation to a plateau schedule; returns the new state."""
        if self._plateau is None:
            return state
        opt_state = schedules.observe(self._plateau, state.opt_state, jnp.float32(error))
        return parallel.place_state(
            dataclasses.replace(state, opt_state=opt_state), self.experiment.mesh
        )

    def _stop_nonfinite(self, step: int, what: str) -> Iterator[Report]:
        """Raises FloatingPointError that names the first layer with a nonfinite value."""
        train_step = self.engine.train_step
        if train_step is None:
            raise FloatingPointError(what)
        self._newest.wait()
        experiment = self.experiment
        restored = self._newest.restore_newest(self._shapes())
        start, state = (0, self._initial_state()) if restored is None else restored[:2]
        text = f"{what}; repeating steps {start + 1} to {step} to find the layer"
        yield self._report("notice", {"text": text}, step)

        def make_steps(state: TrainState, before: int, count: int) -> TrainState:
            state, _ = train_step(state, self._loader.batch(before, count), self.key)
            if self._plateau is not None and self.calendar.evaluates(before + count):
                state = self._observe(state, self._test_means(state)["top1_error"])
            return state

        state = parallel.place_state(state, experiment.mesh)
        state = nonfinite.replay(start, state, step - 1, self.calendar, make_steps)
        batch = self._loader.batch(step - 1, 1)
        where = nonfinite.find_nonfinite_layer(experiment, state, batch, self.key)
        raise FloatingPointError(f"{what}: {where}")

    def _is_drawn(self) -> bool:
        """Whether the figures are there and not older than the last step's checkpoint."""
        saved = (self.directory / workdir.CHECKPOINTS / str(self.step)).stat().st_mtime
        names = (curves.CURVES, samples.PREDICTIONS, workdir.SUMMARY)
        figures = [self.directory / name for name in names]
        return all(path.is_file() and path.stat().st_mtime >= saved for path in figures)

    def _draw(self) -> None:
        """Draws the error curves and the predictions for held-out examples; writes the summary."""
        rows = read_rows(self.directory)
        title = f"{self.config.model.name} on {self.config.data.source}"
        curves.plot_curves(rows, self.directory / curves.CURVES, title)
        images, labels = loaders.first_examples(self.experiment, _PREDICTED)
        state = parallel.on_this_host(self.state)
        predicted = engine.predict(self.experiment, state, images, labels)
        names = self.experiment.test_set.class_names
        path = self.directory / samples.PREDICTIONS
        samples.plot_predictions(images, labels, predicted, names, path)
        workdir.write_summary(self.directory, self.step, labels, predicted, self._compiled)


def _without_finite(means: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in means.items() if name != "finite"}


# Runs whose iterator was not exhausted: at exit their background threads are stopped.
_OPEN_RUNS: weakref.WeakSet[Run] = weakref.WeakSet()


def _close_open_runs() -> None:
    for run in list(_OPEN_RUNS):
        with contextlib.suppress(Exception):
            run.close()


# Runs before the thread pools that write checkpoints are shut down; `atexit` would be too late.
getattr(threading, "_register_atexit", atexit.register)(_close_open_runs)
