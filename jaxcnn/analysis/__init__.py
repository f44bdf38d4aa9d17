"""Analysis: costs and receptive fields of networks, explanations of predictions, benchmarks.

`draw` draws networks, `summarize` lists what each layer costs, `receptive_fields` what each stage
sees, `grad_cam` and `backward_view` what in an image a prediction is based on, `measure_signals`
how signals pass through a network, and `first_samples` what a run trains on. `first_filters` and
`feature_maps` return what a trained network has learned, and `draw_filters`, `animate_filters` and
`draw_feature_maps` draw it. The modules hold the functions of the commands of the same names:
`bench`, `complexity` (`jaxcnn compare`), `history`, `networks` (`jaxcnn list`), `plan`, `selfcheck`
and `signals`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.analysis import (
        bench,
        complexity,
        explain,
        history,
        networks,
        plan,
        selfcheck,
        signals,
    )
    from jaxcnn.analysis.drawing import Drawing, draw
    from jaxcnn.analysis.explain import backward_view, grad_cam
    from jaxcnn.analysis.field_pictures import draw_kernels, draw_receptive_fields
    from jaxcnn.analysis.inside import feature_maps, first_filters
    from jaxcnn.analysis.inside_pictures import animate_filters, draw_feature_maps, draw_filters
    from jaxcnn.analysis.receptive_field import ReceptiveField, receptive_fields
    from jaxcnn.analysis.samples import first_samples
    from jaxcnn.analysis.signals import Signal, measure_signals
    from jaxcnn.analysis.summary import Summary, summarize

__all__ = [
    "Drawing",
    "ReceptiveField",
    "Signal",
    "Summary",
    "animate_filters",
    "backward_view",
    "bench",
    "complexity",
    "draw",
    "draw_feature_maps",
    "draw_filters",
    "draw_kernels",
    "draw_receptive_fields",
    "explain",
    "feature_maps",
    "first_filters",
    "first_samples",
    "grad_cam",
    "history",
    "measure_signals",
    "networks",
    "plan",
    "receptive_fields",
    "selfcheck",
    "signals",
    "summarize",
]

_MODULES = (
    *("bench", "complexity", "explain", "history"),
    *("networks", "plan", "selfcheck", "signals"),
)
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        **{name: name for name in _MODULES},
        "Drawing": "drawing",
        "draw": "drawing",
        "animate_filters": "inside_pictures",
        "draw_feature_maps": "inside_pictures",
        "draw_filters": "inside_pictures",
        "draw_kernels": "field_pictures",
        "draw_receptive_fields": "field_pictures",
        "ReceptiveField": "receptive_field",
        "receptive_fields": "receptive_field",
        "Signal": "signals",
        "measure_signals": "signals",
        "Summary": "summary",
        "summarize": "summary",
        "feature_maps": "inside",
        "first_filters": "inside",
        "backward_view": "explain",
        "grad_cam": "explain",
        "first_samples": "samples",
    },
)
