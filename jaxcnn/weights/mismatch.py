"""Reports weights that do not match a network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from jaxcnn.models import registry

COUNTER = "num_batches_tracked"

_LISTED = 8  # keys of each kind
_STATISTICS = ("running_mean", "running_var", COUNTER)


def check(
    name: str, wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> None:
    """Checks that a mapping has the expected keys, shapes and types.

    Args:
      name: id of the network.
      wanted: {key: shape}.
      given: {key: array}.

    Raises:
      ValueError: with a list of missing and unexpected keys, different shapes, and arrays that are
        not real numbers.
    """
    missing = [f"- {key} {list(shape)}" for key, shape in wanted.items() if key not in given]
    surplus = [f"+ {key} {list(array.shape)}" for key, array in given.items() if key not in wanted]
    shapes = [
        f"{key} is {list(given[key].shape)}, not {list(shape)}"
        for key, shape in wanted.items()
        if key in given and given[key].shape != shape
    ]
    types = [
        f"{key} holds {array.dtype}"
        for key, array in given.items()
        if key in wanted and not np.can_cast(array.dtype, np.float64)
    ]
    kinds = (
        ("missing (-)", missing),
        ("surplus (+)", surplus),
        ("of another shape", shapes),
        ("not of real numbers", types),
    )
    if not any(lines for _, lines in kinds):
        return
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in kinds if lines)
    text = [f"these weights do not fit {name}: {counts}"]
    for kind, lines in kinds:
        text += [f"  {line}" for line in lines[:_LISTED]]
        if len(lines) > _LISTED:
            text.append(f"  and {len(lines) - _LISTED} more {kind}")
    same = _as_large(given) if len(missing) > len(wanted) / 2 else []
    if same:
        text.append(f"they have as many parameters as {', '.join(same)}")
    raise ValueError("\n".join(text))


def _as_large(given: Mapping[str, np.ndarray]) -> list[str]:
    """Networks with the same number of parameters as a mapping, at most four."""
    return of_that_size(
        sum(
            math.prod(array.shape)
            for key, array in given.items()
            if key.rpartition(".")[2] not in _STATISTICS and not key.startswith("batch_stats/")
        )
    )


def of_that_size(count: int) -> list[str]:
    """Returns the networks with a number of parameters, at most four.

    Args:
      count: the number, with or without auxiliary heads.
    """
    facts = registry.published()
    counts = {
        n: (facts[n]["params"], facts[n].get("params_with_aux"))
        for n in registry.list_models()
        if n in facts
    }
    return [name for name, sizes in counts.items() if count in sizes][:4]
