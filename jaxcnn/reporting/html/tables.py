"""Tables of a page: HTML whose columns the page's script sorts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcnn.reporting.html.content import Link

_LONG = 20  # characters of a heading, which may break if it has more


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
      markup: HTML of its content.
      value: number to sort by; None to sort by the text. A column with numbers is aligned right.
    """

    markup: str
    value: float | None = None


def text(value: Any) -> Cell:
    """A cell that shows a text as it is, whatever markup it holds."""
    return Cell(breakable(value))


def breakable(value: Any) -> str:
    """The HTML of a text, in which long names may break after "/" and "_"."""
    return html.escape(str(value)).replace("/", "/<wbr>").replace("_", "_<wbr>")


def number(value: float | int | None, form: str = ",", scale: float = 1) -> Cell:
    """A cell with a number; empty for None.

    Args:
      value: to show.
      form: of the number, as in a format string.
      scale: factor of the number.
    """
    return Cell("") if value is None else Cell(format(value * scale, form), value)


def links(places: Sequence[Link]) -> Cell:
    """A cell with links, or with texts where a page cannot link."""
    return Cell(" ".join(map(link, places)))


def link(place: Link) -> str:
    """A link as HTML; its text if there is no target."""
    shown = html.escape(place.text)
    if place.target is None:
        return f"<span>{shown}</span>"
    return f'<a href="{html.escape(place.target)}">{shown}</a>'


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    name: str,
    marks: Sequence[str] = (),
) -> str:
    """Formats a table that sorts by the column whose header is clicked.

    Args:
      header: of the columns.
      rows: cells of each row.
      name: id of the table.
      marks: attributes of each row, as HTML; () for none.

    Returns:
      The table as HTML, in a box that scrolls sideways.
    """
    numeric = [any(cell.value is not None for cell in column) for column in zip(*rows)]
    aligned = [' class="right"' if right else "" for right in numeric] or [""] * len(header)
    head = "".join(
        f"<th{side}><button>{_heading(words)}</button></th>" for words, side in zip(header, aligned)
    )
    body = ""
    for row, mark in zip(rows, marks or [""] * len(rows)):
        cells = "".join(_cell(cell, side) for cell, side in zip(row, aligned))
        body += f"<tr{f' {mark}' if mark else ''}>{cells}</tr>\n"
    return (
        f'<div class="scroll"><table class="sorts" id="{html.escape(name)}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def comparison(names: Sequence[str], facts: Sequence[Mapping[str, Any]], *, name: str) -> str:
    """Formats a table with a line for each field and a column for each run.

    Lines in which the runs differ are marked; the page's script can hide the others.

    Args:
      names: of the runs.
      facts: {field: value} of each run.
      name: id of the table.
    """
    fields = sorted({field for one in facts for field in one})
    rows, marks = [], []
    for field in fields:
        values = [one.get(field) for one in facts]
        rows.append([text(field), *map(_value, values)])
        marks.append('class="differs"' if len({repr(value) for value in values}) > 1 else "")
    return table(["field", *names], rows, name=name, marks=marks)


def _value(value: Any) -> Cell:
    if value is None:
        return Cell("")
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return text(value)


def _heading(words: str) -> str:
    return html.escape(words) if len(words) <= _LONG else breakable(words)


def _cell(cell: Cell, side: str) -> str:
    value = "" if cell.value is None else f' data-v="{cell.value!r}"'
    return f"<td{side}{value}>{cell.markup}</td>"
