"""Loads runs: a trained network with the facts needed to use it, or all that continues training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from jaxcnn._checks import one_of
from jaxcnn._files import any_path
from jaxcnn.data.preprocessing import Preprocessing, from_dict
from jaxcnn.training import parallel
from jaxcnn.training.build import Experiment, build_experiment
from jaxcnn.training.config.checks import TrackedConfig
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints
from jaxcnn.training.output.records import (
    check_normalization,
    read_manifest,
    read_run_config,
)
from jaxcnn.training.output.workdir import BEST, CHECKPOINTS, open_checkpoints
from jaxcnn.training.state import TrainState

_FOLDERS = {"best": BEST, "newest": CHECKPOINTS}


class TrainedModel(NamedTuple):
    """A trained network.

    Attributes:
      model: id of the network.
      options: fields of its module.
      variables: {"params", "batch_stats"}.
      step: step of the checkpoint.
      preprocessing: preprocessing of its images in evaluation.
      class_names: names of its classes.
    """

    model: str
    options: dict[str, Any]
    variables: dict[str, Any]
    step: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def load_run(workdir: str | Path, checkpoint: str | int = "best") -> TrainedModel:
    """Loads a checkpoint of a run onto one device.

    If the run has a running average of the weights, the average is returned. Only the directory is
    needed. (The `config.json` of a run of an early version does not describe the data; these must
    still be available then.)

    Args:
      workdir: directory of the run.
      checkpoint: "best", "newest", or the step of a checkpoint that the run has kept, see
        `checkpoint_steps`.

    Returns:
      The trained network.

    Raises:
      ValueError: the directory is not that of a run, or the run has no such checkpoint.
      FileNotFoundError: the data of an old run are no longer available.
    """
    workdir = any_path(workdir).absolute()
    step = checkpoint if isinstance(checkpoint, int) else None
    folder = _folder(workdir, "newest" if isinstance(checkpoint, int) else checkpoint)
    manifest = read_manifest(workdir)
    config = manifest["config"]
    step, state = read_state(folder, step)
    if manifest.get("preprocessing") is not None and manifest.get("class_names") is not None:
        preprocessing = from_dict(manifest["preprocessing"])
        class_names = tuple(manifest["class_names"])
    else:  # a run of an early version
        preprocessing, class_names = sets.preprocessing(TrackedConfig(config))
    weights = state if state["ema"] is None else state["ema"]
    return TrainedModel(
        config["model"]["name"],
        dict(config["model"]["options"]),
        {"params": weights["params"], "batch_stats": weights["batch_stats"]},
        step,
        preprocessing,
        class_names,
    )


def load_experiment(
    workdir: str | Path, checkpoint: str = "newest"
) -> tuple[Experiment, TrainState]:
    """Loads a checkpoint of a run and builds what it was trained with, for a loop of your own.

    The experiment is built for one device. Its step is `jaxcnn.training.pure_step(experiment)`.

    Args:
      workdir: directory of the run. Its data must be available.
      checkpoint: "best" or "newest".

    Returns:
      (experiment, training state). The experiment has the network, the optimizer,
      the loss, the preprocessing, both datasets and the configuration.

    Raises:
      ValueError: the directory is not that of a run, the run has no such checkpoint, `checkpoint`
        is neither "best" nor "newest", the experiment cannot be built, or its images are
        normalized in another way than those of the run.
    """
    workdir = any_path(workdir).absolute()
    folder = _folder(workdir, checkpoint)
    config = read_run_config(workdir)
    with config.unlocked():
        config.train.update({"devices": 1, "parallel": "jit"})
    experiment = build_experiment(TrackedConfig(config))
    data = experiment.train_set
    check_normalization(workdir, read_manifest(workdir), data.mean, data.std)
    steps = saved_steps(folder)
    if not steps:
        raise ValueError(f"there is no checkpoint in {folder}{_other(folder, None)}")
    with open_checkpoints(folder) as store:
        state, _ = store.restore(
            steps[-1], checkpoints.abstract(experiment.shapes, experiment.mesh)
        )
    return experiment, parallel.place_state(state, experiment.mesh)


def _folder(workdir: Path, checkpoint: str) -> Path:
    """Returns the directory of the best or the newest checkpoint."""
    return workdir / _FOLDERS[one_of("checkpoint", checkpoint, _FOLDERS)]


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """Returns the steps of the checkpoints that a run has kept, ascending.

    Args:
      workdir: directory of the run.
    """
    return saved_steps(any_path(workdir) / CHECKPOINTS)


def saved_steps(folder: str | Path) -> list[int]:
    """Returns the steps of the checkpoints in a directory, ascending; [] if there are none."""
    if not any_path(folder).is_dir():
        return []
    with open_checkpoints(folder) as store:
        return store.steps()


def read_state(folder: str | Path, step: int | None = None) -> tuple[int, Any]:
    """Reads the state of a checkpoint onto one device. The run may still be in progress.

    Args:
      folder: directory of the checkpoints.
      step: step of the checkpoint; the newest if None.

    Returns:
      (step, state).

    Raises:
      ValueError: the checkpoint does not exist or cannot be read.
    """
    folder = any_path(folder).absolute()
    while True:
        steps = saved_steps(folder)
        if not steps:
            raise ValueError(f"there is no checkpoint in {folder}{_other(folder, None)}")
        if step is not None and step not in steps:
            known = ", ".join(f"{one:,}" for one in steps)
            raise ValueError(f"there is no checkpoint of step {step:,} in {folder}, but of {known}")
        chosen = steps[-1] if step is None else step
        try:
            return chosen, _read(folder, chosen)
        except Exception as error:  # Orbax passes on errors of any type
            if saved_steps(folder) != steps:
                continue  # the run is in progress, and has replaced the checkpoint by a newer one
            raise ValueError(
                f"checkpoint {folder / str(chosen)} cannot be read ({checkpoints.reason(error)})"
                f"{_other(folder, chosen)}"
            ) from error


def _read(folder: Path, step: int) -> Any:
    # The shapes come from the checkpoint, so neither the optimizer nor the devices are needed.
    device = SingleDeviceSharding(jax.local_devices()[0])
    with open_checkpoints(folder) as store:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), store.shapes(step)
        )
        return store.restore(step, like)[0]


def _other(folder: Path, broken: int | None) -> str:
    """Returns the end of a message that names a usable checkpoint; "" if there is none."""
    older = [step for step in saved_steps(folder) if broken is not None and step < broken]
    if older:
        return f"; move it away to use the one of step {older[-1]}"
    newest = folder.parent / CHECKPOINTS
    if folder != newest and saved_steps(newest):
        return f'; the newest one (--checkpoint newest, or checkpoint="newest") is in {newest}'
    return ""
