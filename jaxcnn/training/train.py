"""The entry points: train one run, or an ensemble."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from jaxcnn._objects import pass_object
from jaxcnn.reporting.report import Report
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.config import validate, with_present_names
from jaxcnn.training.config.files import clear_superseded
from jaxcnn.training.config.schema import OBJECTS
from jaxcnn.training.ensemble import described, members
from jaxcnn.training.loop import train_one
from jaxcnn.training.output.workdir import check_holds_run

_FLAX_FIELDS = ("parent", "name")


class Training(Iterator[Report]):
    """An iterator over the reports of a training run; each `next` advances the training.

    SIGTERM, Ctrl-C and SIGHUP stop the training at its next step and save a checkpoint. They are
    caught while `next` runs; between two reports the previous handlers are active. A `with`
    statement catches the signals throughout and closes the run when it exits:

        with train(config, workdir) as reports:
            for report in reports:
                ...

    Args:
      start: function of the `StopSignals` that starts the training; called by the first `next`.
    """

    def __init__(self, start: Callable[[StopSignals], Iterator[Report]]):
        self._stop = StopSignals()
        self._reports = _start_on_first_next(start, self._stop)

    def __next__(self) -> Report:
        with self._stop:
            return next(self._reports)

    def __enter__(self) -> Training:
        self._stop.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.close()
        finally:
            self._stop.__exit__(*error)

    def close(self) -> None:
        """Ends the training at the current step; saved files are kept."""
        self._reports.close()


def _start_on_first_next(
    start: Callable[[StopSignals], Iterator[Report]], stop: StopSignals
) -> Generator[Report, None, None]:
    """Yields the reports; `start` is called by the first `next`."""
    yield from start(stop)


def train(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    prepare: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Training:
    """Trains a network as configured, and yields a report for every event.

    Everything is checked before anything is written to `workdir`. SIGTERM, Ctrl-C or SIGHUP stops
    the run at the next step and saves a checkpoint. `resume` continues from it (after a kill, from
    the newest checkpoint); the result is bit-identical to that of an uninterrupted run.

    Args:
      config: see `jaxcnn.training.config.default_config`. `train.members` trains several runs
        together; see `jaxcnn.training.ensemble.members`.
      workdir: directory for checkpoints, metrics and figures.
      model: a Linen module class, a partial of one, or a module, of which only the fields are used.
        The run sets the fields `num_classes`, `dtype`, `axis_name` and `bn_group`. This argument
        and the four below replace the corresponding names in the configuration. `config.json`
        records that they came from Python; pass them again to resume the run.
      data: a data source, or a function that opens one; see `jaxcnn.data.catalog`.
      loss: function of (logits f32[N,K], labels i32[N]) that returns f32[N].
      optimizer: an `optax.GradientTransformation`, or a function that returns one. A function with
        a parameter `learning_rate` receives the schedule of `config.schedule`.
      prepare: training augmentation, replaces `config.data.augment`: function of (key, image
        u8[H,W,C]) that returns an image of the same shape. Normalization follows it.
      resume: continue the run in `workdir`; start a new one if there is none.
      overwrite: delete the run in `workdir`, then start a new one.
      extend: continue the run in `workdir` to a different length; `train.length_*` and
        `eval.batch_size` may change. From here on the schedule is that of the new length.

    Returns:
      An iterator over `Report`s, also usable in a `with` statement. The last report is "end" or
      "stopped".

    Raises:
      ValueError: the configuration, the data or the directory cannot be used, or an evaluation did
        not count every example exactly once.
      FloatingPointError: the loss or a gradient is not finite. The message names the step and the
        first layer with a nonfinite value.
    """
    objects = {
        "model": model,
        "data": data,
        "loss": loss,
        "optimizer": optimizer,
        "prepare": prepare,
    }

    def reports(stop: StopSignals) -> Iterator[Report]:
        complete = _with_objects(with_present_names(config), objects)
        validate(complete)
        options = _directory_options(workdir, resume, overwrite, extend)
        if not complete["train"]["members"]:
            return train_one(complete, workdir, stop=stop, **options)
        if not isinstance(complete, ConfigDict):
            complete = ConfigDict(complete)
        return members.train_members(complete, workdir, stop=stop, **options)

    return Training(reports)


def _directory_options(
    workdir: str | Path, resume: bool, overwrite: bool, extend: bool
) -> dict[str, bool]:
    """Checks and returns `resume`, `overwrite` and `extend`; `extend` implies `resume`."""
    if extend and overwrite:
        raise ValueError("extend and overwrite cannot be combined")
    if extend:
        check_holds_run(workdir)
    return {"resume": resume or extend, "overwrite": overwrite, "extend": extend}


def _with_objects(config: Mapping[str, Any], objects: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the configuration with the address of each passed object in the object's field."""
    passed = {argument: value for argument, value in objects.items() if value is not None}
    if not passed:
        return config
    changed = copy.deepcopy(config)
    changed = changed if isinstance(changed, ConfigDict) else ConfigDict(changed)
    with changed.unlocked():
        for argument, value in passed.items():
            if isinstance(value, nn.Module):
                fields = [f.name for f in dataclasses.fields(value) if f.name not in _FLAX_FIELDS]
                value = functools.partial(type(value), **{f: getattr(value, f) for f in fields})
            if argument == "data" and not callable(value):
                value = _opener(value)
            section, _, name = OBJECTS[argument].partition(".")
            address = pass_object(value, argument)
            changed[section][name] = ((address, None),) if argument == "prepare" else address
            clear_superseded(changed, [OBJECTS[argument]])
    return changed


def _opener(source: Any) -> Callable[[], Any]:
    """Returns a function that returns an open data source."""
    return lambda: source


def train_ensemble(
    spec: str,
    workdir: str | Path,
    *,
    overrides: Any = (),
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Training:
    """Trains the members described by a file, "path/to/file.py" or "path/to/file.py:smoke".

    Members that differ only in the fields allowed by `train.members` are trained together. The
    `member` of a report is the member's index. If the loss of a member is not finite, that member
    stops and the others continue.

    Args:
      spec: see `jaxcnn.training.ensemble.described`.
      workdir: parent directory; member i is trained in `workdir/member_i`.
      overrides: "field=value" strings, set in the configuration of every member.
      resume: continue the runs in `workdir`, as in `train`.
      overwrite: delete the runs in `workdir`, as in `train`.
      extend: continue the runs to a different length, as in `train`.

    Returns:
      An iterator over the `Report`s of all members, as in `train`.

    Raises:
      ValueError: as `train`, `described.read_ensemble` and `described.ensemble_configs`.
      FloatingPointError: the loss of a member was not finite; raised after the others have ended.
    """

    def reports(stop: StopSignals) -> Iterator[Report]:
        options = _directory_options(workdir, resume, overwrite, extend)
        return described.train_described(spec, workdir, overrides=overrides, stop=stop, **options)

    return Training(reports)
