"""Compilation, with the compiler options for each platform.

The options are passed to each program, never through XLA_FLAGS, where an option that the installed
version does not know would end the process. Here such an option is left out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# XLA's YNN kernels are slow for the gradient of a convolution's kernel: every kind of fusion but
# the convolution's. The preset shortens a step of many small channels. The pass, which jaxlib 0.12
# runs late enough, removes optimization barriers; XLA would then merge what `jax.checkpoint`
# recomputes with what the forward pass has computed, and rematerialization would save no memory.
CPU_STEP = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE,"
        "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    ),
    "xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE",
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
# Without them a GPU may add up some sums, such as those of a scatter, in a varying order.
GPU_DETERMINISTIC = {
    "xla_gpu_deterministic_ops": True,
    "xla_gpu_exclude_nondeterministic_ops": True,
}
GPUS = ("gpu", "cuda", "rocm")
# An initialization runs once, so that its cost is that of its compilation.
CPU_INIT = {"xla_backend_optimization_level": 0}


def jit(
    fn: Callable[..., Any],
    *,
    donate_argnums: Sequence[int] = (),
    deterministic: bool = False,
    platform: str | None = None,
    **options: Any,
) -> Any:
    """Applies `jax.jit` to a function that runs many times, with the platform's compiler options.

    Args:
      fn: to be compiled.
      donate_argnums: see `jax.jit`.
      deterministic: on a GPU, use only deterministic operations; CPUs and TPUs always do.
      platform: the platform to compile for; by default that of the default device.
      **options: for `jax.jit`.
    """
    platform = platform or jax.default_backend()
    compiler_options = accepted(CPU_STEP) if platform == "cpu" else {}
    if deterministic and platform in GPUS:
        compiler_options = accepted(GPU_DETERMINISTIC)
    return jax.jit(fn, donate_argnums=donate_argnums, compiler_options=compiler_options, **options)


def compile_init(fn: Callable[..., Any]) -> Any:
    """Applies `jax.jit` to a function that runs once, for fast compilation.

    The results may differ from those of `jit` in the last bit. For initializations see
    `jaxcnn.runtime.initialization`.

    Args:
      fn: to be compiled.
    """
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(fn, compiler_options=accepted(CPU_INIT) if on_cpu else {})


def memory_bytes(compiled: Any) -> int | None:
    """Returns the memory of a compiled program in bytes: arguments, results and temporaries.

    Args:
      compiled: result of `jax.jit(...).lower(...).compile()`.

    Returns:
      Number of bytes; None if the backend does not report it.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return taken + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def accepted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the compiler options that the backend accepts and that XLA_FLAGS does not set.

    Args:
      options: {name: value}.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    return {k: v for k, v in options.items() if f"--{k}=" not in flags and _accepts(k, v)}


@functools.cache
def _accepts(name: str, value: Any) -> bool:
    """Tries an option on an empty program, which cannot fail for another reason."""
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
