"""Tracks which pixels each value of a traced computation depends on, along height and width.

Convolutions and pooling widen the interval of pixels, padding and cropping shift it, and branches
that join have the smallest interval that contains both. A value that is pooled over a whole axis
depends on all of it, and so does everything scaled by a squeeze-and-excitation gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

from jaxcnn.models.costs import sub_jaxprs

INF = math.inf


class Span(NamedTuple):
    """The pixels along one image axis that an array depends on.

    Index o of dimension `dim` depends on the pixels stride * o + first to stride * o + last. If
    `dim` is None, the whole array depends on the pixels first to last.

    Attributes:
      dim: dimension of the array that corresponds to the image axis, or None.
      stride: pixels per index.
      first, last: of the pixels that index 0 depends on.
    """

    dim: int | None
    stride: int
    first: float
    last: float


# The pixels that an array depends on, along the image's height and width; None for no pixel.
Spans = tuple[Span, Span] | None


def image_spans() -> Spans:
    """Returns the spans of images [N,H,W,C]."""
    return Span(1, 1, 0, 0), Span(2, 1, 0, 0)


def propagate(jaxpr: Any, given: Sequence[Spans]) -> list[Spans]:
    """Computes the spans of the outputs of a jaxpr.

    Args:
      jaxpr: of a trace.
      given: spans of its inputs.
    """
    known: dict[Any, Spans] = dict(zip(jaxpr.invars, given, strict=True))

    def of(var: Any) -> Spans:
        return None if isinstance(var, Literal) else known.get(var)

    for eqn in jaxpr.eqns:
        seen = [of(var) for var in eqn.invars]
        call = inner_call(eqn, seen)
        known.update(zip(eqn.outvars, propagate(*call) if call else equation_spans(eqn, seen)))
    return [of(var) for var in jaxpr.outvars]


def inner_call(eqn: Any, given: Sequence[Spans]) -> tuple[Any, list[Spans]] | None:
    """Finds the jaxpr that an equation calls.

    Of platform-specific branches it is the default.

    Args:
      eqn: of a jaxpr.
      given: spans of its inputs.

    Returns:
      The jaxpr and the spans of its inputs; None if the equation calls none.
    """
    inner, name = list(sub_jaxprs(eqn)), eqn.primitive.name
    if not inner or name in ("scan", "while"):
        return None
    if name == "cond":  # the last branch is the default
        return inner[-1], list(given[1:])
    called = inner[0]
    return called, [None] * (len(called.invars) - len(given)) + list(given)


def equation_spans(eqn: Any, given: Sequence[Spans]) -> list[Spans]:
    """Computes the spans of the outputs of an equation that calls no jaxpr.

    Args:
      eqn: of a jaxpr.
      given: spans of its inputs.
    """
    if all(spans is None for spans in given):
        return [None] * len(eqn.outvars)
    rule = _RULES.get(eqn.primitive.name, _elementwise)
    return [rule(eqn, given)] * len(eqn.outvars)


# --- rules ----------------------------------------------------------------------------------------


def _each(spans: Spans, change: Callable[[Span], Span]) -> Spans:
    assert spans is not None
    return change(spans[0]), change(spans[1])


def _whole(span: Span, dim: int | None) -> Span:
    return Span(dim, span.stride, -INF, INF)


def _union(all_spans: Sequence[Spans]) -> Spans:
    present = [spans for spans in all_spans if spans is not None]
    return _join([s[0] for s in present]), _join([s[1] for s in present])


def _join(spans: Sequence[Span]) -> Span:
    placed = [span for span in spans if span.dim is not None]
    if len({(span.dim, span.stride) for span in placed}) > 1:
        raise ValueError("branches with different strides are joined")
    like = placed[0] if placed else spans[0]
    if 0 < len(placed) < len(spans):  # the other branch affects all indices of this one
        return _whole(like, like.dim)
    first, last = min(span.first for span in spans), max(span.last for span in spans)
    return Span(like.dim, like.stride, first, last)


def _elementwise(eqn: Any, given: Sequence[Spans]) -> Spans:
    rank = len(eqn.outvars[0].aval.shape)
    same = [var.aval.ndim == rank or spans is None for var, spans in zip(eqn.invars, given)]
    if not all(same):
        return _each(_union([s for s in given if s is not None][:1]), lambda s: _whole(s, None))
    return _union(given)


def _window(
    span: Span, size: int, stride: int, padding: tuple[int, int], dilation: int, dim: int
) -> Span:
    first = span.first - span.stride * padding[0]
    last = span.last + span.stride * ((size - 1) * dilation - padding[0])
    return Span(dim, span.stride * stride, first, last)


def _conv(eqn: Any, given: Sequence[Spans]) -> Spans:
    spans, params = given[0], eqn.params
    if spans is None or given[1] is not None or any(d != 1 for d in params["lhs_dilation"]):
        raise ValueError(
            "a convolution with a dilated input or a computed kernel has no receptive field"
        )
    numbers = params["dimension_numbers"]
    kernel = eqn.invars[1].aval.shape

    def change(span: Span) -> Span:
        if span.dim not in numbers.lhs_spec[2:]:
            return span
        i = numbers.lhs_spec[2:].index(span.dim)
        return _window(
            span,
            kernel[numbers.rhs_spec[2 + i]],
            params["window_strides"][i],
            params["padding"][i],
            params["rhs_dilation"][i],
            numbers.out_spec[2 + i],
        )

    return _each(spans, change)


def _reduce_window(eqn: Any, given: Sequence[Spans]) -> Spans:
    params = eqn.params

    def change(span: Span) -> Span:
        if (i := span.dim) is None:
            return span
        return _window(
            span,
            params["window_dimensions"][i],
            params["window_strides"][i],
            params["padding"][i],
            params["window_dilation"][i],
            i,
        )

    return _each(given[0], change)


def _pad(eqn: Any, given: Sequence[Spans]) -> Spans:
    config = eqn.params["padding_config"]

    def change(span: Span) -> Span:
        if span.dim is None:
            return span
        low, _, interior = config[span.dim]
        return _whole(span, span.dim) if interior else _shifted(span, -low)

    return _each(given[0], change)


def _shifted(span: Span, units: int, step: int = 1) -> Span:
    by = span.stride * units
    return Span(span.dim, span.stride * step, span.first + by, span.last + by)


def _slice(eqn: Any, given: Sequence[Spans]) -> Spans:
    starts, steps = eqn.params["start_indices"], eqn.params["strides"]

    def change(span: Span) -> Span:
        if span.dim is None:
            return span
        return _shifted(span, starts[span.dim], 1 if steps is None else steps[span.dim])

    return _each(given[0], change)


def _move_dims(spans: Spans, where: Callable[[int], int | None]) -> Spans:
    """Moves the spans to new dimensions; None means that a dimension was reduced or mixed."""

    def change(span: Span) -> Span:
        if span.dim is None:
            return span
        dim = where(span.dim)
        return _whole(span, None) if dim is None else span._replace(dim=dim)

    return _each(spans, change)


def _transpose(eqn: Any, given: Sequence[Spans]) -> Spans:
    return _move_dims(given[0], eqn.params["permutation"].index)


def _broadcast(eqn: Any, given: Sequence[Spans]) -> Spans:
    if given[0] is None:
        return None
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    where = eqn.params["broadcast_dimensions"]
    return _move_dims(given[0], lambda d: where[d] if old[d] == new[where[d]] else None)


def _reduce(eqn: Any, given: Sequence[Spans]) -> Spans:
    axes = eqn.params["axes"]
    return _move_dims(given[0], lambda d: None if d in axes else d - sum(axis < d for axis in axes))


def _squeeze(eqn: Any, given: Sequence[Spans]) -> Spans:
    gone = eqn.params["dimensions"]
    return _move_dims(given[0], lambda d: None if d in gone else d - sum(axis < d for axis in gone))


def _reshape(eqn: Any, given: Sequence[Spans]) -> Spans:
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape

    def where(dim: int) -> int | None:
        before = math.prod(old[:dim])
        for i, size in enumerate(new):
            if size == old[dim] and math.prod(new[:i]) == before:
                return i
        return None

    return _move_dims(given[0], where)


def _concatenate(eqn: Any, given: Sequence[Spans]) -> Spans:
    along = eqn.params["dimension"]
    joined = _union(given)
    return _each(joined, lambda span: _whole(span, along) if span.dim == along else span)


def _dot(eqn: Any, given: Sequence[Spans]) -> Spans:
    (contracted, batch) = eqn.params["dimension_numbers"]
    results = []
    for side, spans in enumerate(given[:2]):
        if spans is None:
            continue
        ranks = [len(var.aval.shape) for var in eqn.invars[:2]]
        free = [
            [d for d in range(ranks[i]) if d not in contracted[i] and d not in batch[i]]
            for i in (0, 1)
        ]
        order = {d: i for i, d in enumerate(batch[side])}
        start = len(batch[side]) + (len(free[0]) if side else 0)
        order |= {d: start + i for i, d in enumerate(free[side])}
        results.append(_move_dims(spans, order.get))
    return _union(results)


def _scrambled(eqn: Any, given: Sequence[Spans]) -> Spans:
    return _each(_union([s for s in given if s is not None][:1]), lambda span: _whole(span, None))


_RULES: Mapping[str, Callable[[Any, Sequence[Spans]], Spans]] = {
    "conv_general_dilated": _conv,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "reduce_window_sum": _reduce_window,
    "reduce_window": _reduce_window,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_prod": _reduce,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "dot_general": _dot,
    **dict.fromkeys(("gather", "rev", "scan", "while", "dynamic_slice", "sort"), _scrambled),
}
