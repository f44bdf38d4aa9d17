"""The front door: trains one run, or an ensemble."""

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
from jaxcnn.training.config.files import settle
from jaxcnn.training.config.schema import OBJECTS
from jaxcnn.training.ensemble import described, members
from jaxcnn.training.loop import train_one
from jaxcnn.training.output.workdir import check_holds_run

_FLAX_FIELDS = ("parent", "name")


class Training(Iterator[Report]):
    """The reports of a training, which goes on as they are asked for.

    SIGTERM and Ctrl-C stop the training at its next step, with a checkpoint. They are caught while
    a report is being made, and between two reports they do what they did before. In a `with`
    statement they are caught throughout, and what was begun is closed at its end:

        with train(config, workdir) as reports:
            for report in reports:
                ...
    """

    def __init__(self, make: Callable[[StopSignals], Iterator[Report]]):
        self._stop = StopSignals()
        self._reports = _when_asked(make, self._stop)

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
        """Ends the training where it is; what was saved is kept."""
        self._reports.close()


def _when_asked(
    make: Callable[[StopSignals], Iterator[Report]], stop: StopSignals
) -> Generator[Report, None, None]:
    """The reports; nothing is made before the first is asked for."""
    yield from make(stop)


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
    """Trains as the configuration says, and yields a report of each thing that happens.

    Everything is checked before workdir is touched. SIGTERM or Ctrl-C ends the run at the
    next step with a checkpoint; `resume` goes on from there, or from the newest checkpoint after a
    kill, and ends in the same bits as an undisturbed run.

    Args:
      config: see `jaxcnn.training.config.default_config`. With `train.members` several runs are
        trained as one; see `jaxcnn.training.ensemble.members`.
      workdir: directory for checkpoints, metrics and figures.
      model: a Linen module class, a partial of one, or a module, whose fields are taken. The fields
        `num_classes`, `dtype`, `axis_name` and `bn_group` are set by the run. This object and those
        below take the place of what the configuration names. `config.json` records that they came
        from Python: whoever resumes the run has to pass them again.
      data: a data source, or the function that opens it; see `jaxcnn.data.catalog`.
      loss: function of (logits f32[N,K], labels i32[N]) that returns f32[N].
      optimizer: an `optax.GradientTransformation`, or a function that returns one; if it has a
        parameter `learning_rate`, it is given `config.schedule`.
      prepare: augmentation in training, in place of `config.data.augment`: function of (key, image
        u8[H,W,C]) that returns an image of the same shape; normalization follows it.
      resume: go on with the run that it holds; begin if it holds none.
      overwrite: delete the run that it holds.
      extend: go on with the run that it holds, to another length: `train.length_*` and
        `eval.batch_size` may differ, too. The schedule is that of the new length from here on.

    Returns:
      An iterator of `Report`s, which can be used in a `with` statement, too; the last report is
      "end" or "stopped".

    Raises:
      ValueError: the configuration, the data or the directory cannot be used, or an evaluation did
        not count every example once.
      FloatingPointError: the loss or a gradient was not finite; the text names the step, what
        was not finite, and the first layer where.
    """

    objects = {
        "model": model,
        "data": data,
        "loss": loss,
        "optimizer": optimizer,
        "prepare": prepare,
    }

    def reports(stop: StopSignals) -> Iterator[Report]:
        known = _with_objects(with_present_names(config), objects)
        validate(known)
        use = _directory_use(workdir, resume, overwrite, extend)
        one_or_all = members.train_members if known["train"]["members"] else train_one
        return one_or_all(known, workdir, stop=stop, **use)

    return Training(reports)


def _directory_use(
    workdir: str | Path, resume: bool, overwrite: bool, extend: bool
) -> dict[str, bool]:
    """What is to be done with the run that a directory holds; to extend is to resume."""
    if extend and overwrite:
        raise ValueError("extend and overwrite exclude each other")
    if extend:
        check_holds_run(workdir)
    return {"resume": resume or extend, "overwrite": overwrite, "extend": extend}


def _with_objects(config: Mapping[str, Any], objects: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with the addresses of the objects that are given, each in its field."""
    given = {argument: value for argument, value in objects.items() if value is not None}
    if not given:
        return config
    changed = copy.deepcopy(config)
    changed = changed if isinstance(changed, ConfigDict) else ConfigDict(changed)
    with changed.unlocked():
        for argument, value in given.items():
            if isinstance(value, nn.Module):
                fields = [f.name for f in dataclasses.fields(value) if f.name not in _FLAX_FIELDS]
                value = functools.partial(type(value), **{f: getattr(value, f) for f in fields})
            if argument == "data" and not callable(value):
                value = _opener(value)
            section, _, name = OBJECTS[argument].partition(".")
            address = pass_object(value, argument)
            changed[section][name] = ((address, None),) if argument == "prepare" else address
            settle(changed, [OBJECTS[argument]])
    return changed


def _opener(source: Any) -> Callable[[], Any]:
    """A function that opens what is open already."""
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
    """Trains the members that a file describes, "path/to/file.py" or "path/to/file.py:smoke".

    Those that differ only as `train.members` may differ are trained as one. A report's `member`
    says whose it is. A member whose loss is not finite ends, the others go on.

    Args:
      spec: see `jaxcnn.training.ensemble.described`.
      workdir: member i is trained into `workdir/member_i`.
      overrides: "field=value", set in all members' configurations.
      resume, overwrite, extend: as in `train`.

    Raises:
      ValueError: as `train`, `described.read_ensemble` and `described.ensemble_configs`.
      FloatingPointError: when all others have ended, if the loss of a member was not finite.
    """

    def reports(stop: StopSignals) -> Iterator[Report]:
        use = _directory_use(workdir, resume, overwrite, extend)
        return described.train_described(spec, workdir, overrides=overrides, stop=stop, **use)

    return Training(reports)
