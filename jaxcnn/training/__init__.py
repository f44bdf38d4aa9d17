"""Training: pure steps, and the loop around them.

`train` trains as a configuration says, and `load_run` opens the result:

    from jaxcnn import training

    config = training.default_config()
    for report in training.train(config, "runs/mine"):
        print(report)
    run = training.load_run("runs/mine")

`make_train_step`, `make_eval_step`, `create_state`, `make_preprocess`, `load_experiment`,
`pure_step` and the module `parallel` are for a loop of your own.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.reporting.report import Report
    from jaxcnn.training import parallel
    from jaxcnn.training.config import default_config, set_duration, smoke
    from jaxcnn.training.config.files import read_config
    from jaxcnn.training.engine import pure_step
    from jaxcnn.training.ensemble.described import Ensemble, Member
    from jaxcnn.training.input.preprocess import make_preprocess
    from jaxcnn.training.output.trained import (
        TrainedModel,
        checkpoint_steps,
        load_experiment,
        load_run,
    )
    from jaxcnn.training.state import TrainState, create_state
    from jaxcnn.training.step import make_eval_step, make_train_step
    from jaxcnn.training.train import train

__all__ = [
    "Ensemble",
    "Member",
    "Report",
    "TrainState",
    "TrainedModel",
    "checkpoint_steps",
    "create_state",
    "default_config",
    "load_experiment",
    "load_run",
    "make_eval_step",
    "make_preprocess",
    "make_train_step",
    "parallel",
    "pure_step",
    "read_config",
    "set_duration",
    "smoke",
    "train",
]

# Imported on first use: the loop needs data sources that a pure step does not.
_HOMES = {
    "Ensemble": "jaxcnn.training.ensemble.described",
    "Member": "jaxcnn.training.ensemble.described",
    "Report": "jaxcnn.reporting.report",
    "TrainState": "jaxcnn.training.state",
    "TrainedModel": "jaxcnn.training.output.trained",
    "checkpoint_steps": "jaxcnn.training.output.trained",
    "create_state": "jaxcnn.training.state",
    "default_config": "jaxcnn.training.config",
    "load_experiment": "jaxcnn.training.output.trained",
    "load_run": "jaxcnn.training.output.trained",
    "make_eval_step": "jaxcnn.training.step",
    "make_preprocess": "jaxcnn.training.input.preprocess",
    "make_train_step": "jaxcnn.training.step",
    "pure_step": "jaxcnn.training.engine",
    "read_config": "jaxcnn.training.config",
    "set_duration": "jaxcnn.training.config",
    "smoke": "jaxcnn.training.config",
    "train": "jaxcnn.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "parallel":
        return importlib.import_module("jaxcnn.training.parallel")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps `jaxcnn.training.train` the function after the submodule of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "train" or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
