"""Evaluates a traced network with other derivatives of its ReLUs, or with values added to it.

The network needs no support for this: the ReLUs are found in its jaxpr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

Array = jax.Array


def _relu_with(backward: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
    """A ReLU whose gradient is `backward(x, g)`."""

    @jax.custom_vjp
    def relu(x: Array) -> Array:
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, g: (backward(x, g),))
    return relu


# Backward passes of a ReLU. "deconvnet" rectifies the signal itself (Zeiler & Fergus 2013, section
# 2.1); "guided" combines both conditions (Springenberg et al. 2014, section 3.4).
RULES: Mapping[str, Callable[[Array], Array] | None] = {
    "gradient": None,
    "deconvnet": _relu_with(lambda x, g: jnp.maximum(g, 0)),
    "guided": _relu_with(lambda x, g: jnp.where(x > 0, jnp.maximum(g, 0), 0)),
}


def evaluate(
    jaxpr: Any,
    consts: Sequence[Any],
    args: Sequence[Any],
    *,
    relu: Callable[[Array], Array] | None = None,
    added: Mapping[Any, Array] | None = None,
) -> list[Any]:
    """Evaluates a jaxpr with replaced ReLUs or added values.

    Args:
      jaxpr: of a `ClosedJaxpr`.
      consts: of the `ClosedJaxpr`.
      args: its inputs.
      relu: function to use in place of every ReLU, including those in inner functions; None to
        replace none.
      added: {variable of the jaxpr: array to add to its value}.

    Returns:
      The outputs.
    """
    values = {**dict(zip(jaxpr.constvars, consts)), **dict(zip(jaxpr.invars, args))}

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        inner = _inner(eqn)
        if relu is not None and is_relu(eqn):
            outputs = [relu(*inputs)]
        elif inner is not None and relu is not None:
            outputs = evaluate(*inner, inputs, relu=relu)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # JAX < 0.10
            outputs = eqn.primitive.bind(*functions, *inputs, **params)
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        values.update(zip(eqn.outvars, outputs))
        for var in eqn.outvars:
            if added and var in added:
                values[var] = values[var] + added[var]
    return [read(var) for var in jaxpr.outvars]


def is_relu(eqn: Any) -> bool:
    """Returns whether an equation calls `jax.nn.relu`: max(x, 0) with a custom derivative."""
    if eqn.primitive.name != "custom_jvp_call":
        return False
    jaxpr = eqn.params["call_jaxpr"].jaxpr
    while len(jaxpr.eqns) == 1 and (inner := _inner(jaxpr.eqns[0])):
        jaxpr = inner[0]
    if len(jaxpr.eqns) != 1 or jaxpr.eqns[0].primitive.name != "max":
        return False
    return any(isinstance(var, Literal) and var.val == 0 for var in jaxpr.eqns[0].invars)


def _inner(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """(jaxpr, constants) of an inner function or a rematerialized block; None for neither."""
    if eqn.primitive.name not in ("pjit", "jit", "closed_call", "checkpoint", "remat2", "remat"):
        return None
    held = eqn.params["jaxpr"]
    return (held.jaxpr, held.consts) if hasattr(held, "consts") else (held, ())
