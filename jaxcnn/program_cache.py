"""Where compiled programs are kept between runs, for the commands; a library's caller decides.

A program that was compiled before is read from a folder of the user's in place of being compiled
again, and computes the same bits. `JAXCNN_CACHE=0` turns that off; `JAX_COMPILATION_CACHE_DIR`
names another folder, and JAX's other variables are heeded as well.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

# What is quicker to compile is not kept. The folder stays below this size: the oldest goes first.
_LEAST_SECONDS, _MOST_BYTES = 0.1, 2 * 2**30


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
    folder = _caches(environment) / "jaxcnn" / "xla" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_LEAST_SECONDS))
    if importlib.util.find_spec("filelock"):  # JAX needs it to keep the folder small
        environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_MOST_BYTES))
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


def _machine() -> str:
    """A name for the processor and what it can do: its programs may not run on another one."""
    facts = f"{platform.system()} {platform.machine()} {platform.processor()}"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        told = ("model name", "flags", "Features", "CPU part")
        facts += "".join(sorted({line for line in lines if line.startswith(told)}))
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
