"""Conditions under which every test runs: CPU, 8 virtual devices, rank promotion raises."""

import gc
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("MPLBACKEND", "Agg")
# Of the commands that tests start, too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's lines on programs from the cache
# Most programs run a few times, so that most of the time would be that of XLA's optimizations.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Traces of many networks stay in JAX's caches, and every full collection would visit them.
gc.freeze()
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def optimizations(request):
    """Compiles a test that is marked `optimized` as `train.py` does."""
    quick = request.node.get_closest_marker("optimized") is None
    jax.config.update("jax_disable_most_optimizations", quick)
