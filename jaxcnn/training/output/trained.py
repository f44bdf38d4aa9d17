"""What a run has learned: the variables of a checkpoint, and what is needed to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding

from jaxcnn._files import local_path
from jaxcnn.data.preprocessing import Preprocessing, from_dict
from jaxcnn.training.config.checks import TrackedConfig
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints
from jaxcnn.training.output.checkpoints import Checkpoints
from jaxcnn.training.output.records import MANIFEST, read_manifest
from jaxcnn.training.output.workdir import BEST, CHECKPOINTS

_FOLDERS = {"best": BEST, "newest": CHECKPOINTS}


class TrainedModel(NamedTuple):
    """A network after training: id, fields of its module, variables, and what its data were."""

    model: str
    options: dict[str, Any]
    variables: dict[str, Any]
    step: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def load_run(workdir: str | Path, checkpoint: str = "best") -> TrainedModel:
    """Reads a run's best checkpoint, or its newest one, onto one device.

    The running average is taken where the run has one. The directory is all that is needed; of runs
    that do not record their data in `config.json` (those of before 0.2) the data have to be there.

    Raises:
      ValueError: the directory holds no run, or the run no such checkpoint.
      FileNotFoundError: the data are not where they were.
    """
    workdir = local_path(workdir).absolute()
    if not (workdir / MANIFEST).is_file():
        raise ValueError(f"{workdir} is not a run directory (no {MANIFEST})")
    manifest = read_manifest(workdir)
    config = manifest["config"]
    folder = workdir / _FOLDERS[checkpoint]
    step, state = read_state(folder)
    if "preprocessing" in manifest:
        preprocessing = from_dict(manifest["preprocessing"])
        class_names = tuple(manifest["class_names"])
    else:
        preprocessing, class_names = sets.preprocessing(TrackedConfig(config))
    held = state if state["ema"] is None else state["ema"]
    return TrainedModel(
        config["model"]["name"],
        dict(config["model"]["options"]),
        {"params": held["params"], "batch_stats": held["batch_stats"]},
        step,
        preprocessing,
        class_names,
    )


def saved_steps(folder: str | Path) -> list[int]:
    """The steps of the checkpoints in a directory, ascending; [] if there is none."""
    if not Path(folder).is_dir():
        return []
    with Checkpoints(folder) as store:
        return store.steps()


def read_state(folder: str | Path, step: int | None = None) -> tuple[int, Any]:
    """(step, state) of a directory's newest checkpoint, or of that of a step, on one device.

    The directory may be that of a run that is going on.

    Raises:
      ValueError: there is none, or it is not what was saved.
    """
    folder = Path(folder).absolute()
    while True:
        steps = saved_steps(folder)
        if not steps or (step is not None and step not in steps):
            raise ValueError(f"there is no checkpoint in {folder}{_other(folder, None)}")
        chosen = steps[-1] if step is None else step
        try:
            return chosen, _read(folder, chosen)
        except Exception as error:  # Orbax raises whatever its parts raise
            if saved_steps(folder) != steps:
                continue  # the run goes on, and has replaced it by a newer one
            raise ValueError(
                f"checkpoint {folder / str(chosen)} cannot be read ({checkpoints.reason(error)})"
                f"{_other(folder, chosen)}"
            ) from error


def _read(folder: Path, step: int) -> Any:
    import orbax.checkpoint as ocp

    # What is stored says its own shapes: neither the optimizer nor the devices are needed.
    with checkpoints.without_warnings(), ocp.StandardCheckpointer() as reader:
        stored = reader.metadata(folder / str(step) / "state").item_metadata
    device = SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), stored.tree
    )
    with Checkpoints(folder) as store:
        return store.restore(step, like)[0]


def _other(folder: Path, broken: int | None) -> str:
    """Which checkpoint to take instead, as the end of a message; "" if there is none."""
    older = [step for step in saved_steps(folder) if broken is not None and step < broken]
    if older:
        return f"; move it away to use the one of step {older[-1]}"
    newest = folder.parent / CHECKPOINTS
    if folder != newest and saved_steps(newest):
        return f'; the newest one (--checkpoint newest, or checkpoint="newest") is in {newest}'
    return ""
