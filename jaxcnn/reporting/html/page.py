"""Puts a page together from the contents of runs and studies."""

from __future__ import annotations

import html
import importlib.resources
import json
import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn._checks import optional_package
from jaxcnn.reporting.compare_runs import Run
from jaxcnn.reporting.html import charts, predictions, tables
from jaxcnn.reporting.html.content import RunContent, StudyContent, short_names
from jaxcnn.reporting.html.tables import Cell, number, text

_OPENED = 2  # runs whose predictions are shown at first
_CONTROLS = """<div id="controls">
<label>against <select id="x"><option value="epoch">epochs</option>
<option value="step">steps</option><option value="hours">hours</option></select></label>
<label>scale <select id="y"><option value="auto">automatic</option>
<option value="linear">linear</option><option value="log">logarithmic</option></select></label>
<label><input type="checkbox" id="training" checked> training (dashed)</label>
<button id="reset">reset zoom</button>
<div class="chips" id="chips"></div>
</div>
"""
_NOT_SHOWN = ("config", "class_names")  # entries of a manifest that have a section of their own


def library() -> str:
    """Returns the script of Plotly. Raises ValueError if it is not installed."""
    optional_package("plotly", "report")
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def make_page(
    runs: Sequence[RunContent],
    studies: Sequence[StudyContent] = (),
    *,
    script: str,
    when: str,
    reload_seconds: float | None = None,
) -> str:
    """Makes a page about runs and studies.

    The page needs no other file and no network: it forbids the browser to load anything. Names may
    hold markup.

    Args:
      runs: contents of the runs.
      studies: contents of the studies.
      script: the plotting library, see `library`.
      when: date and time that the page shows.
      reload_seconds: time after which the page reloads itself; None for never.

    Returns:
      The HTML.
    """
    names = short_names([content.run.name for content in runs])
    looks = charts.styles(names)
    matrices = [_matrix(content) for content in runs]
    data = {
        "runs": [
            {
                **charts.run_data(name, content.run.rows),
                **{"color": color, "symbol": symbol, "matrix": matrix},
                "seconds": list(charts.seconds(content.run.rows).items()),
            }
            for content, name, (color, symbol), matrix in zip(runs, names, looks, matrices)
        ],
        "charts": charts.chart_data([content.run.rows for content in runs]),
        "reload": reload_seconds,
    }
    nonce = secrets.token_urlsafe(16)
    headings, body = _body(runs, studies, names, [color for color, _ in looks], data)
    folder = importlib.resources.files("jaxcnn.reporting.html")
    parts = {name: folder.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")}
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    return string.Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        nonce=nonce,
        title=html.escape(title),
        when=html.escape(when),
        live="" if reload_seconds is None else _live(reload_seconds),
        nav=" ".join(f'<a href="#{key}">{html.escape(head)}</a>' for key, head in headings),
        body=body,
        style=parts["page.css"],
        data=_json(data),
        library=_inside_script(script),
        script=_inside_script(parts["page.js"]),
    )


def _body(
    runs: Sequence[RunContent],
    studies: Sequence[StudyContent],
    names: Sequence[str],
    colors: Sequence[str],
    data: Mapping[str, Any],
) -> tuple[list[tuple[str, str]], str]:
    """The (id, heading) of each section of a page, and its HTML."""
    just_runs = [content.run for content in runs]
    several = len(runs) > 1
    only = '<label><input type="checkbox" data-only="{}"> only what differs</label>'
    shown = only if several else ""
    sections = [
        ("runs", "Runs", _runs_table(runs, names, colors)),
        ("studies", "Studies", "\n".join(map(_study, studies, range(len(studies))))),
        ("curves", "Curves", _charts(data["charts"], "curves")),
        (
            "time",
            "Time and memory",
            _time_table(runs, names)
            + '<div class="chart" id="seconds"></div>'
            + _charts(data["charts"], "speed"),
        ),
        ("predictions", "Predictions", _predictions(runs, names)),
        (
            "configuration",
            "Configuration",
            shown.format("config")
            + tables.comparison(names, [run.fields for run in just_runs], name="config"),
        ),
        (
            "environment",
            "Environment",
            shown.format("facts") + tables.comparison(names, _facts(just_runs), name="facts"),
        ),
    ]
    sections = [section for section in sections if section[2]]
    return (
        [(key, heading) for key, heading, _ in sections],
        "\n".join(
            f'<section id="{key}"><h2>{heading}</h2>\n{inner}</section>'
            for key, heading, inner in sections
        ),
    )


def _runs_table(runs: Sequence[RunContent], names: Sequence[str], colors: Sequence[str]) -> str:
    header = (
        *("run", "network", "data", "step", "epoch", "training error %", "test error %", "best %"),
        *("images/s", "files"),
    )
    rows = [_runs_row(*args) for args in zip(range(len(runs)), runs, names, colors)]
    note = (
        "<p>Errors are top-1; that of training is the mean since the evaluation before, on "
        "augmented images. The boxes select the runs of all charts; a click on a heading sorts.</p>"
    )
    return tables.table(header, rows, name="runs-table") + note


def _runs_row(index: int, content: RunContent, name: str, color: str) -> list[Cell]:
    run = content.run
    last = run.rows[-1] if run.rows else {"step": 0, "epoch": 0.0}
    total = run.manifest.get("total_steps") or 0
    step = f"{last['step']:,}" + (f" of {total:,}" if last["step"] < total else "")
    evaluation = (run.evaluations() or [{}])[-1]
    box = (
        f'<label><input type="checkbox" data-run="{index}" checked>'
        f'<i style="background:{color}"></i>{tables.breakable(name)}</label>'
    )
    config = run.manifest["config"]
    return [
        Cell(box),
        text(config["model"]["name"]),
        text(config["data"]["source"]),
        Cell(step, last["step"]),
        number(last["epoch"], ".1f"),
        number(_finite(evaluation.get("train_top1_error")), ".2f", 100),
        number(_finite(evaluation.get("top1_error")), ".2f", 100),
        number(_finite(run.best), ".2f", 100),
        number(_median(run, "images_per_second"), ",.0f"),
        tables.links([content.folder, *content.files]),
    ]


def _study(content: StudyContent, index: int) -> str:
    results = content.results
    title = results.get("title") or content.folder.text
    parts = [f"<h3>{html.escape(str(title))}</h3>", f"<p>{tables.link(content.folder)}</p>"]
    if results.get("source"):
        parts.append(f"<p>{html.escape(str(results['source']))}</p>")
    if results.get("scaled"):
        parts.append(f"<p>scaled: {html.escape('; '.join(map(str, results['scaled'])))}</p>")
    rows = [
        [
            text(row.get("run", "")),
            *(number(_finite(row.get(name))) for name in ("seeds", "steps")),
            number(_finite(row.get("train_error")), ".2f"),
            number(_finite(row.get("test_error")), ".2f"),
            number(_finite(row.get("test_error_std")), ".2f"),
            number(_finite(row.get("published")), ".2f"),
        ]
        for row in results.get("rows", ())
    ]
    header = ("setting", "seeds", "steps", "training error %", "test error %", "±", "published %")
    if rows:
        parts.append(tables.table(header, rows, name=f"study{index}"))
        if any(row[5].markup for row in rows):
            parts.append("<p>± is the standard deviation over seeds.</p>")
    else:
        parts.append("<p>The study is not finished: its table is written at the end.</p>")
    for name, failure in (results.get("failed") or {}).items():
        parts.append(f"<p>{html.escape(str(name))} failed: {html.escape(str(failure))}</p>")
    if content.figure is not None:
        parts.append(predictions.picture("figure.png", content.figure))
    return "\n".join(parts)


def _charts(shown: Sequence[Mapping[str, Any]], part: str) -> str:
    boxes = "".join(
        f'<div class="chart" id="{chart["id"]}"></div>' for chart in shown if chart["part"] == part
    )
    if part == "curves" and not boxes:
        return "<p>The runs have no rows yet.</p>"
    return (_CONTROLS if part == "curves" else "") + f'<div class="charts">{boxes}</div>'


def _predictions(runs: Sequence[RunContent], names: Sequence[str]) -> str:
    with_any = [i for i, content in enumerate(runs) if content.summary or content.pictures]
    boxes = (
        predictions.section(content, name, i, opened=i in with_any[:_OPENED])
        for i, (content, name) in enumerate(zip(runs, names))
    )
    return '<div class="boxes">' + "\n".join(boxes) + "</div>"


def _time_table(runs: Sequence[RunContent], names: Sequence[str]) -> str:
    rows = []
    for content, name in zip(runs, names):
        run, summary = content.run, content.summary
        spent = charts.seconds(run.rows)
        compiled = summary.get("compiled") or {}
        memory = [row["device_memory_mib"] for row in run.rows if "device_memory_mib" in row]
        program = _finite(compiled.get("memory_bytes"))
        rows.append(
            [
                text(name),
                Cell(duration(sum(spent.values())), sum(spent.values())),
                *(Cell(duration(value), value) for value in spent.values()),
                number(_finite(compiled.get("seconds")), ".1f"),
                number(_median(run, "step_ms"), ",.2f"),
                number(max(memory, default=None), ",.0f"),
                number(None if program is None else program / 2**20, ",.1f"),
            ]
        )
    header = (
        *(
            "run",
            "all",
            "training",
            "waiting for data",
            "evaluation",
            "checkpoints",
            "compiling (s)",
        ),
        *("ms per step", "peak memory (MiB)", "memory of the step (MiB)"),
    )
    note = (
        "<p>Times are sums over the rows of the metrics. The memory of the step is that of the "
        "compiled program; peak memory is there for devices that report it.</p>"
    )
    return tables.table(header, rows, name="times") + note


def duration(seconds: float) -> str:
    """Formats seconds as hours, minutes and seconds.

    >>> duration(3.21), duration(75), duration(7384)
    ('3.2 s', '1:15 min', '2:03:04 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _facts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The entries of manifests that describe the environment, as {path: value}."""
    return [
        dict(_leaves({k: v for k, v in run.manifest.items() if k not in _NOT_SHOWN}))
        for run in runs
    ]


def _leaves(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{path}{name}.")
        else:
            found.append((f"{path}{name}", value))
    return found


def _matrix(content: RunContent) -> dict[str, Any] | None:
    names = content.run.manifest.get("class_names") or []
    found = predictions.confusion(content.summary, names)
    return None if found is None else predictions.confusion_data(found)


def _median(run: Run, column: str) -> float | None:
    values = [row[column] for row in run.rows if column in row]
    return _finite(float(np.median(values))) if values else None


def _finite(value: Any) -> float | int | None:
    good = isinstance(value, (int, float)) and np.isfinite(value)
    return value if good else None


def _live(seconds: float) -> str:
    return f'<label><input type="checkbox" id="live" checked> reload every {seconds:g} s</label>'


def _json(data: Any) -> str:
    """JSON for a script element, in which no text can end the element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _inside_script(code: str) -> str:
    """Code for a script element; only strings of it may hold the end of such an element."""
    return code.replace("</script", "<\\/script")
