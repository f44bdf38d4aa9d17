"""Lists the costs of each layer of a network: output, activations, parameters, multiply-adds.

The costs are read from the traced computation; nothing is computed and no array is allocated.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn.analysis.layer_rows import Row, layer_rows
from jaxcnn.analysis.receptive_field import field
from jaxcnn.analysis.spans import image_spans
from jaxcnn.analysis.trace import trace
from jaxcnn.models.costs import count_params
from jaxcnn.reporting.tables import markdown_table, text_table


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network and their totals; `print()` shows them as a table.

    Attributes:
      model: id, or name of the class.
      input_size: (height, width, channels).
      rows: the input and every layer, in order of computation.
      aux_params: number of parameters of auxiliary heads, which are used only in training and not
        listed in `rows`.
    """

    model: str
    input_size: tuple[int, int, int]
    rows: tuple[Row, ...]
    aux_params: int

    def total(self, field: str) -> int:
        """Sums a field over the rows, as in `total("macs")`."""
        return sum(getattr(row, field) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Converts the summary to plain data: model, input_size, rows, totals, aux_params."""
        fields = ("activations", "activation_bytes", "params", "weights", "macs")
        return {
            "model": self.model,
            "input_size": list(self.input_size),
            "rows": [_plain(row) for row in self.rows],
            "totals": {field: self.total(field) for field in fields},
            "aux_params": self.aux_params,
        }

    def to_json(self) -> str:
        """Formats `to_dict()` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """Formats the table as Markdown, with a row of totals."""
        return f"{self._title()}\n\n{markdown_table(*self._table(), left=2)}\n\n{self._footer()}"

    def plot(self) -> Any:
        """Draws memory, parameters and multiply-adds over depth, as a Matplotlib figure."""
        from jaxcnn.analysis.cost_figure import draw_costs

        return draw_costs(self)

    def __str__(self) -> str:
        return f"{self._title()}\n\n{text_table(*self._table(), left=2)}\n\n{self._footer()}"

    def _title(self) -> str:
        return f"{self.model}, input {_times(self.input_size)}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = [
            "layer",
            "kind",
            "output",
            "field",
            "activations",
            "parameters",
            "weights",
            "multiply-adds",
        ]
        table = [
            [row.name, row.kind, _times(row.shape), str(row.field or "")]
            + [f"{n:,}" for n in (row.activations, row.params, row.weights, row.macs)]
            for row in self.rows
        ]
        totals = (self.total(field) for field in ("activations", "params", "weights", "macs"))
        return header, [*table, ["total", "", "", "", *(f"{n:,}" for n in totals)]]

    def _footer(self) -> str:
        size = self.total("activation_bytes")
        text = (
            f"activations: {size / 1e6:.2f} MB per image, counting the input and the output of "
            "each convolution, pool and dense layer once\n"
            "field: receptive field in pixels / stride in pixels; all: the whole image"
        )
        if self.aux_params:
            text += f"\nauxiliary heads (training only): {self.aux_params:,} more parameters"
        return text


def summarize(
    model: str | nn.Module, input_size: int | tuple[int, ...] | None = None, **options: Any
) -> Summary:
    """Lists the costs of each layer of a network, for one image in evaluation mode.

    Args:
      model: id or alias, or a network of this package.
      input_size: one number for height and width, (height, width) or (height, width, channels). By
        default the size for which the published counts hold; required for networks of your own.
      **options: for `create_model`, if the model is a name.

    Returns:
      The summary: `print(summary)`, `summary.rows`, `summary.to_dict()`.

    Raises:
      ValueError: the name or an option is unknown, or the input size is missing or too small.
    """
    traced = trace(model, input_size, options)
    values = math.prod(traced.size)
    width = jnp.dtype(getattr(traced.network, "dtype", None) or jnp.float32).itemsize
    itself = field(image_spans())
    rows = (
        Row("input", "input", traced.size, values, values * width, 0, 0, 0, itself),
        *layer_rows(traced.jaxpr, traced.variables["params"], traced.variables.get("batch_stats")),
    )
    used = sum(row.params for row in rows)
    held = count_params(traced.variables["params"])
    return Summary(traced.name, traced.size, rows, held - used)


def _plain(row: Row) -> dict[str, Any]:
    """A row as plain data; the size of a receptive field that is the whole image is None."""
    seen = row.field
    if seen is None:
        return dataclasses.asdict(row) | {"shape": list(row.shape)}
    size = None if math.inf in seen.size else [int(n) for n in seen.size]
    plain = {"size": size, "stride": list(seen.stride), "center": list(seen.center)}
    return dataclasses.asdict(row) | {"shape": list(row.shape), "field": plain}


def _times(numbers: Any) -> str:
    return "x".join(map(str, numbers))
