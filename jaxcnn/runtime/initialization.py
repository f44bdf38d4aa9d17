"""Runs an initialization without compiling it as a whole.

A network has hundreds of parameters, but few different shapes. Compiled as a whole, `model.init`
draws each of them by code of its own, which takes the compiler half a minute for ResNet-152. Here
arrays that differ only in their key share a program, and the programs are compiled side by side.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.api_util import debug_info
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from jaxcnn.runtime import compilation

_LARGE = 1 << 16  # elements, from which optimized code saves more time than its compilation costs

_programs: dict[Hashable, Callable[..., Any]] = {}  # by (equations, where they run)


def run_by_array(fn: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Makes a function that computes each array of `fn(key)` by itself.

    What no array depends on, such as the output of the network, is not computed. The programs are
    kept for other keys and other networks. The arrays may differ in the last bit from those of
    `jax.jit(fn)`.

    Args:
      fn: function of a key whose result is a tree of arrays, such as `model.init`.
    """

    def run(key: jax.Array) -> Any:
        disabled: Any = jax.config.jax_disable_jit  # type: ignore[attr-defined]
        if disabled or isinstance(key, jax.core.Tracer):  # a transformation compiles it
            return fn(key)
        traced, shapes = jax.make_jaxpr(fn, return_shape=True)(key)
        jaxpr, _ = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)
        used: set[int] = set()
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, key]))
        makers = {}
        for equation in jaxpr.eqns:
            if _is_of_keys(equation) and all(v in known for v in _variables(equation)):
                known.update(_derive_keys(equation, known))
            else:
                makers.update(dict.fromkeys(equation.outvars, equation))
        groups: dict[Hashable, list[_Array]] = {}
        results = [var for var in jaxpr.outvars if isinstance(var, Var)]
        for result in dict.fromkeys(results):
            if result not in known:
                array = _make_array(makers, known, result)
                constant = _constant(array)
                if constant is None:
                    groups.setdefault(array.text, []).append(array)
                else:
                    known[result] = constant
        # JAX's context managers, such as `jax.default_device`, apply to the thread that entered
        # them: only the compiler runs in others.
        default: Any = jax.config.jax_default_device  # type: ignore[attr-defined]
        place = default, getattr(key, "sharding", None)
        new = {text: group[0] for text, group in groups.items() if (text, place) not in _programs}
        lowered = {text: _lower(array, known) for text, array in new.items()}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            compiled = pool.map(lambda program: program.compile(), lowered.values())
            _programs.update(zip(((text, place) for text in lowered), compiled))
        for text, group in groups.items():
            for array in group:
                inputs = (known[var] for var in array.inputs)
                known[array.result] = _programs[text, place](*inputs)[0]
        arrays = [
            jnp.asarray(var.val) if isinstance(var, Literal) else _once(known[var], used)
            for var in jaxpr.outvars
        ]
        return jax.tree.unflatten(jax.tree.structure(shapes), arrays)

    return run


@dataclasses.dataclass(frozen=True)
class _Array:
    """How an array is computed.

    Attributes:
      result: its variable.
      equations: that compute it, in order.
      inputs: the known variables that they need.
      text: the equations with numbered variables: equal for arrays that share a program.
    """

    result: Any
    equations: list[Any]
    inputs: list[Var]
    text: Hashable


def _is_of_keys(equation: Any) -> bool:
    """Whether an equation only derives keys from keys."""
    types = [var.aval.dtype for var in equation.outvars]
    typed = all(jnp.issubdtype(dtype, jax.dtypes.prng_key) for dtype in types)
    return typed or equation.primitive.name == "random_unwrap"


def _variables(equation: Any) -> list[Var]:
    return [var for var in equation.invars if isinstance(var, Var)]


def _derive_keys(equation: Any, known: Mapping[Var, Any]) -> dict[Var, Any]:
    inputs = _variables(equation)
    keys = _as_function([equation], inputs, equation.outvars)(*(known[var] for var in inputs))
    return dict(zip(equation.outvars, keys))


def _make_array(makers: Mapping[Var, Any], known: Mapping[Var, Any], result: Var) -> _Array:
    equations: dict[int, Any] = {}
    numbers: dict[Var, int] = {}
    inputs = []

    def visit(var: Any) -> None:
        if isinstance(var, Literal) or var in numbers:
            return
        if var in known:
            inputs.append(var)
        else:
            for needed in makers[var].invars:
                visit(needed)
            equations[id(makers[var])] = makers[var]
        numbers[var] = len(numbers)

    def name(var: Any) -> Hashable:
        value = repr(var.val) if isinstance(var, Literal) else numbers.get(var)
        return value, str(var.aval)

    visit(result)
    text = tuple(
        (
            equation.primitive,
            tuple((key, _hashable(value)) for key, value in equation.params.items()),
            tuple(map(name, equation.invars)),
            tuple(map(name, equation.outvars)),
        )
        for equation in equations.values()
    )
    return _Array(result, list(equations.values()), inputs, text)


def _hashable(value: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _lower(array: _Array, known: Mapping[Var, Any]) -> Any:
    """Lowers the program of an array, and of those that share it."""
    program = _as_function(array.equations, array.inputs, [array.result])
    large = array.result.aval.size >= _LARGE
    jitted = jax.jit(program) if large else compilation.compile_init(program)
    return jitted.lower(*(known[var] for var in array.inputs))


def _constant(array: _Array) -> np.ndarray | None:
    """Returns an array of one value throughout, such as zeros, which needs no program."""
    aval, equation = array.result.aval, array.equations[0]
    if len(array.equations) > 1 or equation.primitive.name != "broadcast_in_dim":
        return None
    value = equation.invars[0]
    if not isinstance(value, Literal) or np.ndim(value.val):
        return None
    return np.full(aval.shape, value.val, aval.dtype)


def _once(array: Any, used: set[int]) -> jax.Array:
    """Copies an array that has been used before: whoever donates the tree donates each once."""
    if isinstance(array, jax.Array) and id(array) not in used:
        used.add(id(array))
        return array
    return jnp.array(np.asarray(array))


def _as_function(equations: list[Any], inputs: list[Var], results: list[Var]) -> Callable[..., Any]:
    names = debug_info("initialization", lambda *inputs: None, inputs, {})
    names = names._replace(result_paths=tuple(f"result[{i}]" for i in range(len(results))))
    return jaxpr_as_fun(ClosedJaxpr(Jaxpr((), inputs, results, equations, debug_info=names), ()))
