"""Memory that a process keeps between the steps of a run on a CPU, for the commands.

XLA asks the C library for a step's memory at its start and gives it back at its end. glibc returns
blocks of more than 32 MiB to the system at once, so that each step takes its pages anew, each one
cleared and mapped: a sixth of the processor time of a ResNet-20 step. What is kept is not always
found to fit: after some hundred steps of ResNet-20 the heap held the step's memory four times. So
only blocks up to a sixteenth of the machine's memory are kept. `benchmarks/NOTES.md`, "CPU".
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1  # mallopt takes an int
_NEVER = -1  # for two steps' memory at once, which is seen, may be more than an int


def keep() -> bool:
    """Tells glibc to keep what is freed, for the threads together; returns whether it did.

    Call it before JAX's first array: a thread that has an arena of its own stays with it. False,
    and nothing is set, with another C library and where MALLOC_ variables say how it is to be.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = min(_MOST, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16)
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, _NEVER))
    return all(mallopt(option, value) == 1 for option, value in wanted)


def keep_before_jax() -> bool:
    """`keep()`, unless the process has imported JAX: who did decides about its memory."""
    return "jax" not in sys.modules and keep()
