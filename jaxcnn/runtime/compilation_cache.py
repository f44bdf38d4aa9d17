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
from collections.abc import MutableMapping
from pathlib import Path

_MOST_BYTES = 2 * 2**30


def use(environment: MutableMapping[str, str] = os.environ) -> Path | None:
    """Sets JAX's variables for a command that has not imported JAX yet; returns its folder.

    None, and nothing is set, where the user turned it off or chose a folder, where JAX is imported
    already (its importer has set it up), and where the folder cannot be written.
    """
    if "jax" in sys.modules:
        return None
    # XLA writes lines of thousands of characters about each program that it reads from the cache,
    # as errors; what fails is raised. JAX leaves a 1 to the processes that a program of it starts.
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
    # A start compiles dozens of small programs, too; together they take longer than the step.
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def _caches(environment: MutableMapping[str, str]) -> Path:
    """The user's folder of caches, as the platform has it."""
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
    """Deletes what was not used for longest down to half, if the machines' folders hold too much.

    JAX's own limit looks at all files for every program that it adds, and adds none any more after
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
    """A name for the processor and what it can do: its programs may not run on another one."""
    facts = f"{platform.system()} {platform.machine()} {platform.processor()}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        told = ("model name", "flags", "Features", "CPU part")
        facts += "".join(sorted({line for line in lines if line.startswith(told)}))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
