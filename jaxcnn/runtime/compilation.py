"""The one place that compiles, and the compiler options that a CPU needs.

Options are given per program, never through the environment, where an option that the installed
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
# the convolution's. The preset shortens a step of many small channels.
CPU_STEP = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE,"
        "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    ),
    "xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE",
}
# Without them a GPU adds up some sums, such as a scatter's, in whichever order they come.
GPU_DETERMINISTIC = {
    "xla_gpu_deterministic_ops": True,
    "xla_gpu_exclude_nondeterministic_ops": True,
}
# An initialization runs once: its compilation is all that it costs.
CPU_INIT = {"xla_backend_optimization_level": 0}


def jit(
    fn: Callable,
    *,
    donate_argnums: Sequence[int] = (),
    deterministic: bool = False,
    **options: Any,
) -> Any:
    """`jax.jit` for a step that runs many times, with the CPU's compiler options on a CPU.

    `deterministic` asks a GPU for the same bits every time; CPUs and TPUs give them anyway.
    """
    compiler_options = _on_cpu(CPU_STEP)
    if deterministic and jax.default_backend() == "gpu":
        compiler_options = accepted(GPU_DETERMINISTIC)
    return jax.jit(fn, donate_argnums=donate_argnums, compiler_options=compiler_options, **options)


def compile_init(fn: Callable) -> Any:
    """`jax.jit` for a function that runs once, such as `model.init`: quick to compile.

    Its values may differ from an ordinary `jit`'s in the last bit; so initialize in this way
    everywhere.
    """
    return jax.jit(fn, compiler_options=_on_cpu(CPU_INIT))


def memory_bytes(compiled: Any) -> int | None:
    """Bytes that a compiled program takes: arguments, results, temporaries; None if not known."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return taken + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def accepted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the compiler options that the present backend takes and XLA_FLAGS does not set."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {k: v for k, v in options.items() if f"--{k}=" not in flags and _accepts(k, v)}


def _on_cpu(options: Mapping[str, Any]) -> dict[str, Any]:
    return accepted(options) if jax.default_backend() == "cpu" else {}


@functools.cache
def _accepts(name: str, value: Any) -> bool:
    """Tries the option on an empty program, which has no other reason to fail."""
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
