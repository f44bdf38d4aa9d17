"""The page of `jaxcnn report --html`: read as a browser would, without one."""

import html.parser
import json
import shutil
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from test_compare_runs import write_run

from jaxcnn.cli import main
from jaxcnn.reporting.figures import make_figure
from jaxcnn.reporting.html import charts, content, predictions
from jaxcnn.reporting.html.page import library, make_page
from jaxcnn.studies import files as study_files
from jaxcnn.training.output import records, run_files, workdir
from jaxcnn.training.output.metrics_files import COLUMNS

EVIL = '<img src=x onerror="alert(1)">&amp;</script><!--'


class Page(html.parser.HTMLParser):
    """The elements of a page: scripts, data, links, tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.sources = [], [], [], []
        self.tables, self.scripts = {}, []
        self._table = self._cell = None
        self.feed(text)
        self.close()
        (data,) = [text for given, text in self.scripts if given.get("id") == "data"]
        self.data = json.loads(data)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag == "script":
            self.scripts.append((attrs, ""))
        elif tag == "table":
            self._table = self.tables[attrs["id"]] = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self._table[-1][-1] += data
        elif self.tags[-1:] == ["script"]:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = attrs, text + data


def add_details(folder, names=("cat", "dog")):
    """Class names, predictions, a picture and a checkpoint, as a finished run has them."""
    path = folder / "config.json"
    manifest = json.loads(path.read_text()) | {"class_names": list(names)}
    manifest |= {"versions": {"jax": "0.10.1"}, "platform": "cpu"}
    path.write_text(json.dumps(manifest))
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])
    compiled = {"seconds": 1.5, "memory_bytes": 2**21, "roofline_images_per_second": float("inf")}
    workdir.write_summary(folder, 40, labels, predicted, compiled)
    make_figure(1, 1).savefig(folder / "predictions.png")
    (folder / "best" / "40").mkdir(parents=True)
    (folder / "metrics.csv").write_text("kind,step\n")


def make(*directories, page=Path("out/index.html"), **options):
    """The page of some runs, without the plotting library."""
    runs = [run_files.read_contents(run, page) for run in records.open_runs(directories)]
    return make_page(runs, script="", when="now", **options)


def read(path):
    """A page that was written, without the plotting library, which takes seconds to parse."""
    script = library()
    text = Path(path).read_text("utf-8")
    assert text.count(script) == 1
    return text.replace(script, "")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_shows_everything_and_loads_nothing(here, capsys):
    pytest.importorskip("plotly")
    write_run(here / "runs" / "a", seed=0, errors=[0.5, 0.1, 0.25, 0.2])
    write_run(here / "runs" / "b", seed=7, errors=[0.75])
    add_details(here / "runs" / "a")
    before = sorted((p, p.stat().st_mtime_ns) for p in (here / "runs").rglob("*"))
    assert main(["report", "runs/a", "runs/b", "--html", "new/out/"]) == 0
    assert "new/out/index.html" in capsys.readouterr().out
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (here / "runs").rglob("*"))
    assert not Path("report.png").exists()
    text = read("new/out/index.html")
    page = Page(text)
    assert "default-src 'none'" in text and "link" not in page.tags
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.scripts) == 3
    table = page.tables["runs-table"]
    assert [row[0] for row in table] == ["run", "a", "b"]
    assert table[1][1:9] == [
        *("lenet5_modern", "digits", "40", "2.0", "10.00", "20.00", "10.00", "2,500")
    ]
    assert table[2][3] == "10 of 40"
    assert ["train.seed", "0", "7"] in page.tables["config"]
    assert ["versions.jax", "0.10.1", ""] in page.tables["facts"]
    assert page.tables["classes0"][1] == ["cat", "2", "1", "100.0", "50.0", "dog (1)"]
    assert page.tables["mistakes0"][1] == ["cat", "dog", "1"]
    times = dict(zip(page.tables["times"][0], page.tables["times"][1]))
    assert times["compiling (s)"] == "1.5" and times["memory of the step (MiB)"] == "2.0"
    run = page.data["runs"][0]
    assert run["eval"]["top1_error"] == [0.5, 0.1, 0.25, 0.2]
    assert run["matrix"] == {"counts": [[1, 1], [0, 3]], "names": ["cat", "dog"]}
    assert page.data["reload"] is None
    assert "jaxcnn show-data runs/b --out runs/b/samples.png" in text
    titles = [chart["title"] for chart in page.data["charts"]]
    assert titles == ["top-1 error", "loss", "images per second"]
    assert len(set(page.ids)) == len(page.ids)
    assert {chart["id"] for chart in page.data["charts"]} <= set(page.ids)


def test_links_are_relative_and_move_with_the_folders(here):
    write_run(here / "work" / "a #1%", seed=0, errors=[0.5])
    add_details(here / "work" / "a #1%")
    place = here / "work" / "pages" / "p.html"
    place.parent.mkdir()
    place.write_text(make("work/a #1%", page=place))
    shutil.move(here / "work", here / "moved")
    links = [one for one in Page((here / "moved/pages/p.html").read_text()).links if one[0] != "#"]
    found = [here / "moved" / "pages" / urllib.parse.unquote(one) for one in links]
    assert [path.name for path in found] == ["a #1%", "metrics.csv", "40"]
    assert all(path.exists() for path in found)


def test_names_are_shown_as_they_are(here):
    folder = f"run {EVIL.replace('/', '')}"
    write_run(here / folder, seed=0, errors=[0.5])
    add_details(here / folder, names=(EVIL, "dog"))
    text = make(folder)
    page = Page(text)
    assert page.tags.count("script") == 3 and page.tags.count("img") == 1
    assert page.tables["runs-table"][1][0] == folder
    assert page.tables["classes0"][1][0] == EVIL
    assert page.data["runs"][0]["matrix"]["names"][0] == EVIL
    assert page.data["runs"][0]["name"] == folder


def test_a_study_shows_its_table_and_its_runs(here):
    pytest.importorskip("plotly")
    study = here / "pooling"
    for name in ("max_seed10", "max_seed2", "avg_seed2"):
        write_run(study / name, seed=0, errors=[0.5, 0.25])
    assert not study_files.is_study(study)
    (study / "plan.json").write_text("{}")
    assert main(["report", "pooling", "--html", "p.html"]) == 0
    page = Page(read("p.html"))
    names = [row[0] for row in page.tables["runs-table"][1:]]
    assert names == ["avg_seed2", "max_seed2", "max_seed10"]
    colors = [run["color"] for run in page.data["runs"]]
    assert colors[1] == colors[2] != colors[0]
    assert "study0" not in page.tables
    row = {"run": "max", "seeds": 2, "steps": 20, "train_error": 1.0, "test_error": 2.5}
    row |= {"test_error_std": 0.125, "published": None}
    results = {"title": "Pooling <1>", "source": "a paper", "scaled": [], "failed": {"avg": "why"}}
    (study / "results.json").write_text(json.dumps({**results, "rows": [row]}))
    assert main(["report", "pooling", "pooling/max_seed2", "--html", "p.html"]) == 0
    text = read("p.html")
    page = Page(text)
    assert page.tables["study0"][1] == ["max", "2", "20", "1.00", "2.50", "0.12", ""]
    assert len(page.data["runs"]) == 3, "each run once"
    for words in ("Pooling &lt;1&gt;", "avg failed: why", "± is the standard deviation over seeds"):
        assert words in text
    (study / "results.json").write_text('{"rows": [3]}')
    with pytest.raises(ValueError, match=r"results\.json is not the results of a study"):
        study_files.read_results(study)


def test_watch_follows_a_run_to_its_end(here):
    pytest.importorskip("plotly")
    write_run(here / "a", seed=0, errors=[0.5], total=40)
    page = here / "live.html"

    def go_on():
        while not page.exists() and over.wait(0.05) is False:
            pass
        seen.append(page.read_bytes())
        row = {"kind": "eval", "step": 40, "epoch": 2.0, "top1_error": 0.125, "loss": 1.0}
        with open(here / "a" / "metrics.jsonl", "a") as file:
            file.write("\n" + json.dumps(row) + "\n")

    seen, over = [], threading.Event()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        assert main(["report", "a", "--html", "live.html", "--watch", "1"]) == 0
    finally:
        over.set()
    thread.join()
    (here / "first.html").write_bytes(seen[0])
    first, last = Page(read("first.html")), Page(read(page))
    assert first.data["reload"] == 1 and "live" in first.ids
    assert last.data["reload"] is None and "live" not in last.ids
    assert last.data["runs"][0]["eval"]["step"] == [10, 40]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--watch"], "--watch writes a page"),
        (["--html", "p.html", "--watch", "0"], "--watch is 0; it must be 1 to 86,400 seconds"),
        (["--html", "p.html", "--watch", "inf"], "--watch is inf; it must be 1 to 86,400 seconds"),
        (["--html", "nowhere/p.html"], "there is no directory nowhere"),
        (["--html", "a/config.json"], "--html is 'a/config.json', a file"),
    ],
)
def test_mistakes_are_one_line(arguments, words, here, capsys):
    pytest.importorskip("plotly")
    write_run(here / "a", seed=0, errors=[0.5])
    assert main(["report", "a", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_without_plotly_the_extra_is_named(here, monkeypatch, capsys):
    write_run(here / "a", seed=0, errors=[0.5])
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main(["report", "a", "--html", "p.html"]) == 2
    error = capsys.readouterr().err
    assert "plotly is not installed: pip install 'jaxcnn[report]'" in error
    assert error.count("\n") == 1 and not Path("p.html").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"step": 1}',
        '{"step": 1, "labels": [0], "predicted": [], "compiled": {}}',
        '{"step": 1, "labels": [0], "predicted": [-1], "compiled": {}}',
        '{"step": 1, "labels": [1e9], "predicted": [0], "compiled": {}}',
        '{"step": 1, "labels": [999999999], "predicted": [0], "compiled": {}}',
    ],
)
def test_a_damaged_summary_is_named(text, here):
    write_run(here / "a", seed=0, errors=[0.5])
    (here / "a" / "run_summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"run_summary\.json is damaged"):
        make("a")


def test_a_run_without_rows_has_a_page(here):
    write_run(here / "a", seed=0, errors=[])
    page = Page(make("a", reload_seconds=5))
    assert page.data["charts"] == [] and page.data["reload"] == 5
    assert page.tables["runs-table"][1][3] == "0 of 40"


def test_seconds_of_a_run():
    rows = [
        {"kind": "train", "step": 10, "epoch": 1.0, "step_ms": 200.0, "data_wait_ms": 50.0},
        {"kind": "eval", "step": 10, "epoch": 1.0, "eval_seconds": 3.0, "checkpoint_seconds": 1.0},
        {"kind": "train", "step": 30, "epoch": 3.0, "step_ms": 100.0, "grad_norm": float("nan")},
    ]
    spent = charts.seconds(rows)
    assert spent == {
        **{"training": pytest.approx(3.5), "waiting for data": pytest.approx(0.5)},
        **{"evaluation": 3.0, "checkpoints": 1.0},
    }
    data = charts.run_data("a", rows)
    assert data["train"]["hours"] == pytest.approx([2 / 3600, 8 / 3600], rel=1e-5)
    assert data["train"]["grad_norm"] == [None, None]


def test_long_runs_are_thinned_and_keep_their_end():
    rows = [{"step": step} for step in range(1, 1002)]
    kept = charts.thinned(rows, most=100)
    assert len(kept) <= 102 and kept[0]["step"] == 1 and kept[-1]["step"] == 1001
    assert charts.thinned(rows[:100], most=100) == rows[:100]


def test_runs_can_be_told_apart():
    looks = charts.styles([f"run{i}" for i in range(30)])
    assert len(set(looks)) == 30


def test_names_are_shortened_to_what_differs():
    names = ["gs://b/x/a", "gs://b/x/b/member_0"]
    assert content.short_names(names) == ["a", "b/member_0"]
    assert content.short_names(["runs/a/"]) == ["a"]


def test_of_many_classes_the_most_frequent_mistakes_are_listed():
    names = [f"class {i}" for i in range(1000)]
    labels = [5, 5, 7, 9]
    found = predictions.confusion({"labels": labels, "predicted": [6, 6, 7, 1001]}, names)
    assert (found.total(), found.wrong(), len(found.names)) == (4, 3, 1002)
    assert predictions.confusion_data(found) is None
    table = predictions.mistake_table(found, "t")
    assert table.index("class 6") < table.index("<td>1001</td>") and table.count("<tr") == 3
    assert predictions.class_table(found, "t").count("<tr") == 4
    assert predictions.confusion({}, names) is None


@pytest.mark.slow
def test_a_browser_draws_the_page(here):
    pytest.importorskip("plotly")
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    browser = next(filter(None, programs), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    write_run(here / "a", seed=0, errors=[0.5, 0.1, 0.25, 0.2])
    add_details(here / "a", names=(EVIL, "dog"))
    assert main(["report", "a", "--html", "p.html"]) == 0
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    command = [browser, *options, "--dump-dom", (here / "p.html").as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert drawn.count('class="main-svg"') >= 4, "three charts and the confusion matrix"
    assert "heatmaplayer" in drawn and "onerror" not in drawn.replace(EVIL, "")


def test_charts_show_columns_that_runs_write():
    """A renamed column would leave its chart out of every page."""
    first = [chart.series[0].column for chart in charts._CHARTS]
    assert "localization_top1_error" in first and set(first) <= set(COLUMNS)
