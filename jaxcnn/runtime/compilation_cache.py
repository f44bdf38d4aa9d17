"""Persistent compilation cache for the commands.

Compiled programs are stored in a cache folder of the user and read back in later runs, which
compute the same bits. `JAXCNN_CACHE=0` disables the cache; `JAX_COMPILATION_CACHE_DIR` sets another
folder, and JAX's other variables work as well. A program that uses jaxcnn as a library decides for
itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path

from jaxcnn._files import cache_folder

_MOST_BYTES = 2 * 2**30


def use() -> Path | None:
    """Sets JAX's environment variables for the cache; call it before JAX is imported.

    Returns:
      The cache folder. None, without a folder set, if the user has disabled the cache or chosen a
      folder, if JAX has been imported already, or if the folder is not writable.
    """
    if "jax" in sys.modules:
        return None
    # XLA logs lines of thousands of characters as errors for each program that it reads from the
    # cache; real failures raise exceptions. JAX sets the variable to 1 for its child processes.
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
    # A run compiles dozens of small programs at its start; together they take longer than the step.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def _shrink(programs: Path) -> None:
    """Deletes the least recently used programs down to half the limit if the cache exceeds it.

    JAX's own limit (`jax_compilation_cache_max_size`) lists all files for every program that it
    adds, which takes 0.1 s for 2,000 programs. Before JAX 0.12 it adds none to a directory that
    was filled without the limit, or after a process was killed at the wrong moment.
    """
    files = []
    for path in programs.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # another process deleted it
            files.append((path.stat(), path))
    held = sum(stat.st_size for stat, _ in files)
    if held <= _MOST_BYTES:
        return
    for stat, path in sorted(files, key=lambda f: max(f[0].st_atime, f[0].st_mtime)):
        if held <= _MOST_BYTES / 2:
            return
        path.unlink(missing_ok=True)
        held -= stat.st_size


def _machine() -> str:
    """A name for the type of processor, since compiled programs may not run on other types."""
    facts = f"{platform.system()} {platform.machine()} {platform.processor()}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        prefixes = ("model name", "flags", "Features", "CPU part")
        facts += "".join(sorted({line for line in lines if line.startswith(prefixes)}))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
