"""Output for users: reports of a run, tables, figures, and the display in a terminal.

Nothing here imports JAX, or knows how a run is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.reporting.console import show
    from jaxcnn.reporting.curves import plot_curves
    from jaxcnn.reporting.figures import make_figure
    from jaxcnn.reporting.report import Report
    from jaxcnn.reporting.samples import plot_predictions, plot_samples
    from jaxcnn.reporting.tables import markdown_table, text_table

__all__ = [
    "Report",
    "make_figure",
    "markdown_table",
    "plot_curves",
    "plot_predictions",
    "plot_samples",
    "show",
    "text_table",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Report": "report",
        "make_figure": "figures",
        "markdown_table": "tables",
        "plot_curves": "curves",
        "plot_predictions": "samples",
        "plot_samples": "samples",
        "show": "console",
        "text_table": "tables",
    },
)
