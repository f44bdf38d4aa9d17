"""Where compiled programs are kept between runs, for the commands; a library's caller decides.

A program that was compiled before is read from a folder of the user's in place of being compiled
again, and computes the same bits. `JAXCNN_CACHE=0` turns that off; `JAX_COMPILATION_CACHE_DIR`
names another folder, and JAX's other variables are heeded as well.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

from jaxcnn._files import cache_folder

_MOST_BYTES = 2 * 2**30


def use() -> Path | None:
    """Sets JAX's variables for a command that has not imported JAX yet; returns its folder.

    None, and nothing is set, where the user turned it off or chose a folder, where JAX is imported
    already (its importer has set it up), and where the folder cannot be written.
    """
    if "jax" in sys.modules:
        return None
    # XLA writes lines of thousands of characters about each program that it reads from the cache,
    # as errors; what fails is raised. JAX leaves a 1 to the processes that a program of it starts.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if os.environ.get("JAXCNN_CACHE") == "0" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    caches = cache_folder()
    if caches is None:
        return None
    programs = caches / "xla"
    folder = programs / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            _shrink(programs)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # A start compiles dozens of small programs, too; together they take longer than the step.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def _shrink(programs: Path) -> None:
    """Deletes what was not used for longest down to half, if the machines' folders hold too much.

    JAX's own limit (`jax_compilation_cache_max_size`) looks at all programs whenever it adds one,
    for 0.1 s where there are 2,000. Before JAX 0.12 it adds none to a folder that was filled
    without it, or after a process was killed at the wrong moment.
    """
    found = [(path.stat(), path) for path in programs.glob("*/*")]
    held = sum(stat.st_size for stat, _ in found)
    if held <= _MOST_BYTES:
        return
    for stat, path in sorted(found, key=lambda f: max(f[0].st_atime, f[0].st_mtime)):
        if held <= _MOST_BYTES / 2:
            return
        path.unlink(missing_ok=True)
        held -= stat.st_size


def _machine() -> str:
    """A name for the processor and what it can do: its programs may not run on another one."""
    facts = f"{platform.system()} {platform.machine()} {platform.processor()}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        told = ("model name", "flags", "Features", "CPU part")
        facts += "".join(sorted({line for line in lines if line.startswith(told)}))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
