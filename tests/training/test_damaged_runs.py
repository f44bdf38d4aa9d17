"""What a run has written about itself, after a kill, a power cut, or somebody else's hand."""

import json

import pytest
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn.cli import main
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.reporting import compare_runs
from jaxcnn.training import load_experiment, load_run
from jaxcnn.training.output import records
from jaxcnn.training.output.metrics_files import CSV, JSONL, MetricsFiles, read_rows

ROW = {"kind": "eval", "step": 5, "epoch": 0.5, "loss": 0.3, "top1_error": 0.2}
ENDS = [
    b"",
    b"\n\n\n",
    b"\0" * 4096,
    b'{"kind": "eval", "st',
    b"\0\0\n{}\n[]\nnull\n3\n",
    b'{"kind": "eval", "step": 6}\n',
    b'{"kind": "eval", "step": "6", "epoch": 0.6, "loss": 1, "top1_error": 0.1}\n',
    b'{"kind": "eval", "step": 6, "epoch": 0.6, "loss": 1, "top1_error": null}\n',
    b'{"kind": "eval", "step": 6, "epoch": 0.6, "loss": 1, "top1_error": NaN}\n',
    b'{"kind": "test", "step": 6, "epoch": 0.6, "loss": 1, "top1_error": 0.1}\n',
    b"\xff\xfe\x80\n" + b"[" * 100_000 + b"\n" + b"9" * 5000 + b"\n",
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", ["end", "start", "middle"])
def test_lines_that_are_no_rows_are_dropped(tmp_path, end, place):
    first, last = (json.dumps(ROW | {"step": step}).encode() + b"\n" for step in (5, 7))
    end = end if place == "end" else end + b"\n"
    content = {"end": first + last + end, "start": end + first + last}
    (tmp_path / JSONL).write_bytes(content.get(place, first + end + last))
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 7]
    files = MetricsFiles(tmp_path, after=6)
    files.write("eval", 7, 0.7, {"loss": 0.2, "top1_error": 0.1})
    files.close()
    assert min(files.scores.values()) == 0.1
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 7]
    assert len((tmp_path / JSONL).read_bytes().splitlines()) == 2
    assert len((tmp_path / CSV).read_text().splitlines()) == 3


def test_zeros_before_a_row_leave_the_row(tmp_path):
    """A file system may fill with zeros what was lost of a line before."""
    (tmp_path / JSONL).write_bytes(b"\0" * 100 + json.dumps(ROW).encode() + b"\n")
    assert read_rows(tmp_path) == [ROW]


def test_a_column_of_another_version_stops_no_resume(tmp_path):
    (tmp_path / JSONL).write_text(json.dumps(ROW | {"novelty": 3}) + "\n")
    MetricsFiles(tmp_path, after=6).close()
    assert read_rows(tmp_path)[0]["novelty"] == 3
    assert "novelty" not in (tmp_path / CSV).read_text()


@pytest.mark.parametrize("end", ENDS)
def test_bad_records_go_on_after_any_end(tmp_path, end):
    path = tmp_path / "bad_records.jsonl"
    path.write_bytes(json.dumps({"name": "a", "reason": "torn"}).encode() + b"\n" + end)
    bad = BadRecords(1000, path)
    assert len(bad) == 1
    bad.add("b", "cut")
    bad.add("a", "again")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a", "b"]
    assert len(BadRecords(1000, path)) == 2


@pytest.mark.usefixtures("tiny_network")
def test_a_finished_run_whose_rows_are_lost_can_be_resumed(tmp_path):
    whole = run(small_config(steps=8), tmp_path)
    for damage in (b"\0" * 300, b"", (tmp_path / JSONL).read_bytes()[:200]):
        (tmp_path / JSONL).write_bytes(damage)
        last = run(small_config(steps=8), tmp_path, resume=True)[-1]
        assert last.kind == "end"
        for name in ("loss", "top1_error"):
            assert last.values[name] == pytest.approx(whole[-1].values[name], rel=1e-6)


def wrong(**changes):
    """The manifest of a run with other values, by their place."""

    def change(content):
        for place, value in changes.items():
            *sections, last = place.split("__")
            section = content
            for name in sections:
                section = section[name]
            section[last] = value
        return json.dumps(content)

    return change


MANIFESTS = [
    (lambda _: "", "is not JSON"),
    (lambda _: "[" * 100_000, "is not JSON"),
    (lambda _: "null", "is not the manifest of a run"),
    (lambda _: '{"config": {}}', "is not the manifest of a run"),
    (wrong(config=None), "config is None; it must be an object"),
    (wrong(config=[]), "config is []; it must be an object"),
    (wrong(config__model=None), "config.model is None; it must be an object"),
    (wrong(config__model__name=3), "config.model.name is 3; it must be a string"),
    (wrong(config__model__options=[]), "config.model.options is []; it must be an object"),
    (wrong(config__data__dir=3), "config.data.dir is 3; it must be a string"),
    (wrong(config__data={}), "config.data.source is None; it must be a string"),
    (wrong(members="many"), "members is 'many'; it must be an integer"),
    (wrong(members=10**12), "members is 1000000000000"),
    (wrong(total_steps="8"), "total_steps is '8'; it must be an integer"),
    (wrong(class_names="abc"), "class_names is 'abc'; it must be a list"),
    (wrong(class_names=["a", 1]), "class_names has other values than names"),
    (wrong(preprocessing=3), "preprocessing is 3; it must be an object"),
    (wrong(preprocessing={}), "a preprocessing must have size, crop"),
    (wrong(preprocessing__std=[0.0]), "a preprocessing has std [0.0]"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    from jaxcnn.training.output import workdir

    folder = tmp_path_factory.mktemp("run")
    workdir.write_manifest(folder, small_config(model="lenet5_modern"), {"total_steps": 8})
    return (folder / records.MANIFEST).read_text()


@pytest.mark.parametrize(("change", "words"), MANIFESTS)
def test_a_damaged_manifest_is_one_line_of_every_command(tmp_path, capsys, manifest, change, words):
    path = tmp_path / records.MANIFEST
    path.write_text(change(json.loads(manifest)))
    for command in (
        ["report", str(tmp_path), "--out", str(tmp_path / "x.png")],
        ["export", str(tmp_path), str(tmp_path / "x.npz")],
        ["evaluate", str(tmp_path)],
    ):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(path) in error and words in error, error


@pytest.mark.usefixtures("tiny_network")
def test_a_damaged_manifest_is_not_resumed(tmp_path, manifest):
    (tmp_path / records.MANIFEST).write_text(wrong(config=None)(json.loads(manifest)))
    with pytest.raises(ValueError, match=r"config\.json is damaged: config is None"):
        run(small_config(), tmp_path, resume=True)


def test_a_whole_manifest_is_read(tmp_path, manifest):
    (tmp_path / records.MANIFEST).write_text(manifest)
    (found,) = records.open_runs([str(tmp_path)])
    assert "lenet5_modern" in compare_runs.table([found])


@pytest.mark.parametrize("load", [load_run, load_experiment])
def test_unknown_checkpoint(load, tmp_path):
    with pytest.raises(ValueError, match="checkpoint is 'latest'"):
        load(tmp_path, "latest")
