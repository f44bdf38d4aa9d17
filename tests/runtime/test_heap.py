"""What a step frees is kept for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from jaxcnn.runtime import heap

# Pages that a process takes anew for a call of a program with 128 MB of temporaries, as a median:
# now and then a call finds another place.
FAULTS = """
import resource, statistics, sys
from jaxcnn.runtime import heap
assert heap.keep() == (sys.argv[1] == "kept")
import jax, jax.numpy as jnp

def sums(x):
    held = jax.lax.optimization_barrier(jnp.outer(x, x))
    return held.sum(0) + held[::-1].sum(1)

x, sums = jnp.ones(4096), jax.jit(sums)
found = []
for _ in range(25):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    sums(x).block_until_ready()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(statistics.median(found)))
"""


def faults(how: str, **variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env=environment | {"JAX_PLATFORMS": "cpu"} | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_no_page_is_taken_twice():
    pages = 4096 * 4096 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert faults("kept") < pages / 20
    assert faults("the user's", MALLOC_ARENA_MAX="2") > pages / 2


# What stays of the heap when more than 2 GiB of it is freed at once. No page of it is touched.
# The first block may lie in what the heap had already.
GROWN = """
import ctypes
from jaxcnn.runtime import heap
assert heap.keep()
c = ctypes.CDLL(None)
c.malloc.restype = c.sbrk.restype = ctypes.c_void_p
c.free.argtypes = [ctypes.c_void_p]
before = c.sbrk(0)
for block in [c.malloc(32 << 20) for _ in range(80)]:
    c.free(block)
print((c.sbrk(0) - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_the_memory_of_two_large_steps_is_kept():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    told = subprocess.check_output([sys.executable, "-c", GROWN], env=environment, text=True)
    assert int(told) >= 79 * 32


def test_a_process_that_has_jax_is_left_alone():
    import jax

    assert jax.__name__ in sys.modules
    assert not heap.keep_before_jax()
