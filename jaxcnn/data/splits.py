"""Split names: "train", "test", "all", "train[:45000]", "train[45000:]", "train[:90%]"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jaxcnn._checks import near

_SPLIT = re.compile(r"(?P<part>\w+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(split: str, sizes: Mapping[str, int]) -> tuple[str, int, int]:
    """Takes a split apart: "train[:90%]" with 50,000 examples is ("train", 0, 45000).

    A percentage is rounded to the nearest example, a negative bound counts from the end; as TFDS
    has it.

    Args:
      split: name of a part, and a slice of it if wanted.
      sizes: {part: number of examples}.

    Raises:
      ValueError: there is no such part, or the slice reaches beyond it or is empty.

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
        raise ValueError(f"unknown split {part!r}{near(part, sizes)}; there are {known}")
    size = sizes[part]
    start, stop = _bound(match["start"], 0, size), _bound(match["stop"], size, size)
    if not 0 <= start < stop <= size:
        raise ValueError(f"split {split!r} is examples {start} to {stop} of {size}")
    return part, start, stop


def _bound(text: str | None, default: int, size: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return value + size if text.startswith("-") else value
