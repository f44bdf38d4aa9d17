"""Random access to data compressed with Snappy.

Compressors process blocks of 64 KiB independently of each other. The compressed form of some blocks
is therefore valid by itself, after a new length in front of it. Photos are hardly compressible, so
that blocks are found quickly: each consists of few elements.
"""

from __future__ import annotations

from array import array

BLOCK = 1 << 16  # bytes


def find_blocks(data: bytes) -> array | None:
    """Finds the compressed blocks.

    Args:
      data: compressed data.

    Returns:
      The start of each block and the end of the last one, as offsets in `data`; None if the blocks
      depend on each other or the data are damaged.
    """
    total, at = read_length(data)
    starts, done, block = array("q"), 0, -BLOCK
    try:
        while done < total:
            if done - block >= BLOCK:
                if done - block > BLOCK and starts:
                    return None  # an element reaches into the next block
                block = done
                starts.append(at)
            tag = data[at]
            length, at, distance = _element(data, tag, at + 1)
            if distance > done - block:
                return None  # a copy from an earlier block
            done += length
    except IndexError:
        return None
    if done != total or at != len(data):
        return None
    starts.append(at)
    return starts


def _element(data: bytes, tag: int, at: int) -> tuple[int, int, int]:
    """(length, offset of the next element, distance of a copy or 0) of an element."""
    kind, value = tag & 3, tag >> 2
    if kind == 0:  # literal
        extra = max(value - 59, 0)
        if extra:
            value = int.from_bytes(data[at : at + extra], "little")
        return value + 1, at + extra + value + 1, 0
    if kind == 1:
        return (value & 7) + 4, at + 1, (tag >> 5 << 8) | data[at]
    size = 2 if kind == 2 else 4
    return value + 1, at + size, int.from_bytes(data[at : at + size], "little")


def read_length(data: bytes) -> tuple[int, int]:
    """Returns (length of the original data, offset of the first element)."""
    value = at = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << 7 * at
        at += 1
    return value | data[at] << 7 * at, at + 1


def with_length(blocks: bytes, length: int) -> bytes:
    """Returns some compressed blocks as compressed data of their own.

    Args:
      blocks: consecutive compressed blocks.
      length: of the original data in them.
    """
    front = bytearray()
    while length > 0x7F:
        front.append(length & 0x7F | 0x80)
        length >>= 7
    front.append(length)
    return bytes(front) + blocks
