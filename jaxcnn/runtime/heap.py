"""Settings of glibc's allocator for training on a CPU, used by the commands.

XLA allocates the memory of a step when it starts and frees it when it ends. By default glibc
returns blocks of more than 32 MiB to the system at once, so that the pages must be mapped and
cleared again in every step, which is a sixth of the processor time of a ResNet-20 step. Freed
blocks that are kept do not always fit the next allocation: after some hundred steps of ResNet-20
the heap was four times the memory of a step. Therefore only blocks of up to a sixteenth of the
machine's memory are kept. See `benchmarks/NOTES.md`, "CPU".
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1  # mallopt takes an int
_NEVER = -1  # a limit could be exceeded: the memory of two steps may not fit in an int


def keep() -> bool:
    """Makes glibc keep freed memory in one heap for all threads.

    Call it before the first JAX array is created, since a thread keeps the arena that it has.

    Returns:
      True on success. False, with nothing changed, if the C library is not glibc or if MALLOC_
      environment variables configure it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = min(_MOST, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16)
    wanted = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, _NEVER))
    return all(mallopt(option, value) == 1 for option, value in wanted)


def keep_before_jax() -> bool:
    """Calls `keep()` unless JAX has been imported, in which case its importer decides.

    Returns:
      The result of `keep()`, or False.
    """
    return "jax" not in sys.modules and keep()
