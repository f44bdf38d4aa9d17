"""Configurations of a run: the fields there are, checks, and reading them from files."""

from jaxcnn.training.config.checks import Recorded, differences, validate
from jaxcnn.training.config.files import read_config
from jaxcnn.training.config.schema import (
    FREE,
    default_config,
    leaves,
    set_duration,
    smoke,
    units,
    within,
)

__all__ = [
    "FREE",
    "Recorded",
    "default_config",
    "differences",
    "leaves",
    "read_config",
    "set_duration",
    "smoke",
    "units",
    "validate",
    "within",
]
