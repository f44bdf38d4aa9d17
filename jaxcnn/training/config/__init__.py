"""Configurations: the available fields, their checks, and reading configurations from files."""

from jaxcnn.training.config.checks import TrackedConfig, differences, differences_text, validate
from jaxcnn.training.config.files import read_config
from jaxcnn.training.config.schema import (
    OPEN_SECTIONS,
    default_config,
    leaves,
    set_duration,
    smoke,
    units,
    with_present_names,
    within,
)

__all__ = [
    "OPEN_SECTIONS",
    "TrackedConfig",
    "default_config",
    "differences",
    "differences_text",
    "leaves",
    "read_config",
    "set_duration",
    "smoke",
    "units",
    "validate",
    "with_present_names",
    "within",
]
