"""Split names: "train", "test", "all", "train[:45000]", "train[45000:]", "train[:90%]"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jaxcnn._checks import near

_SPLIT = re.compile(r"(?P<part>\w+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(split: str, sizes: Mapping[str, int]) -> tuple[str, int, int]:
    """Parses the name of a split, with an optional slice.

    As in TensorFlow Datasets, percentages are rounded to the nearest example, and negative bounds
    count from the end.

    Args:
      split: name, or name and slice.
      sizes: {name: number of examples}.

    Returns:
      (name, start, stop).

    Raises:
      ValueError: there is no such split, or the slice is empty or out of range.

      >>> parse_split("train[90%:]", {"train": 50_000, "test": 10_000})
      ('train', 45000, 50000)
    """
    match = _SPLIT.fullmatch(split)
    if not match:
        raise ValueError(
            f"split {split!r} is not understood; write 'train', 'train[:45000]' or 'train[90%:]'"
        )
    part = match["part"]
    if part not in sizes:
        known = ", ".join(map(repr, sizes))
        hint = near(part, sizes) or f"; there are {known}"
        raise ValueError(f"unknown split {part!r}{hint}")
    size = sizes[part]
    start, stop = _bound(match["start"], 0, size), _bound(match["stop"], size, size)
    if not 0 <= start < stop <= size:
        raise ValueError(
            f"split {split!r} is examples {start} to {stop} of {size}; a slice must have an "
            f"example and lie within 0 to {size}"
        )
    return part, start, stop


def _bound(text: str | None, default: int, size: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return value + size if text.startswith("-") else value
