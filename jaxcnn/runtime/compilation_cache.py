"""Persistent compilation cache for the commands.

Compiled programs are stored in a cache folder of the user and read back in later runs, which
compute the same bits. `JAXCNN_CACHE=0` disables the cache; `JAX_COMPILATION_CACHE_DIR` sets another
folder, and JAX's other variables work as well. A program that uses jaxcnn as a library decides for
itself.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

_MOST_BYTES = 2 * 2**30


def use(environment: MutableMapping[str, str] = os.environ) -> Path | None:
    """Sets JAX's environment variables for the cache; call it before JAX is imported.

    Args:
      environment: to be changed.

    Returns:
      The cache folder. None, with nothing set, if the user has disabled the cache or chosen a
      folder, if JAX has been imported already, or if the folder is not writable.
    """
    if "jax" in sys.modules:
        return None
    # XLA logs lines of thousands of characters as errors for each program that it reads from the
    # cache; real failures raise exceptions. JAX sets the variable to 1 for its child processes.
    if environment.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if environment.get("JAXCNN_CACHE") == "0" or "JAX_COMPILATION_CACHE_DIR" in environment:
        return None
    programs = _caches(environment) / "jaxcnn" / "xla"
    folder = programs / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _shrink(programs)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # A run compiles dozens of small programs at its start; together they take longer than the step.
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def _caches(environment: MutableMapping[str, str]) -> Path:
    """The user's cache folder on this platform."""
    if given := environment.get("XDG_CACHE_HOME"):
        return Path(given)
    if sys.platform == "win32" and (local := environment.get("LOCALAPPDATA")):
        return Path(local)
    try:
        home = Path.home()
    except RuntimeError:  # an account without one
        return Path(os.devnull)
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _shrink(programs: Path) -> None:
    """Deletes the least recently used programs down to half the limit if the cache exceeds it.

    JAX's own limit lists all files for every program that it adds, and stops adding programs after
    a process was killed at the wrong moment.
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
    """A name for the type of processor, since compiled programs may not run on other types."""
    facts = f"{platform.system()} {platform.machine()} {platform.processor()}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        told = ("model name", "flags", "Features", "CPU part")
        facts += "".join(sorted({line for line in lines if line.startswith(told)}))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
