"""Several runs in one table and one figure."""

import json
import os

import pytest

from jaxcnn.cli import main


def write_run(folder, *, seed, errors, total=40, members=0):
    folder.mkdir(parents=True)
    splits = {"train_split": "train", "test_split": "test"}
    config = {
        "model": {"name": "lenet5_modern", "options": {}},
        "data": {"source": "digits", **splits},
        "train": {"seed": seed},
    }
    about = {"config": config, "jaxcnn": "0", "total_steps": total}
    (folder / "config.json").write_text(
        json.dumps(about | ({"members": members} if members else {}))
    )
    rows = []
    for i, error in enumerate(errors, 1):
        place = {"step": 10 * i, "epoch": i / 2}
        rows.append({"kind": "train", **place, "images_per_second": 1000.0 * i, "loss": 1 / i})
        rows.append({"kind": "eval", **place, "top1_error": error, "loss": 1 / i,
                     "train_top1_error": error / 2, "train_loss": 0.5 / i})  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "eval", "st')  # being written


def test_table_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", seed=0, errors=[0.5, 0.1, 0.25, 0.2])
    write_run(tmp_path / "b", seed=7, errors=[0.75])
    write_run(tmp_path / "c", seed=0, errors=[], members=1)
    write_run(tmp_path / "c" / "member_0", seed=3, errors=[])
    assert main(["report", "a", "b", "c", "--out", "all.svg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    a, b, c = (next(line.split() for line in lines if line.startswith(name)) for name in
               ("a ", "b ", "c/member_0"))  # fmt: skip
    assert a == ["a", "lenet5_modern", "40", "2.0", "10.00", "20.00", "10.00", "2,500"]
    assert b == ["b", "lenet5_modern", "10", "of", "40", "0.5", "37.50", "75.00", "75.00", "1,000"]
    assert c == ["c/member_0", "lenet5_modern", "0", "of", "40", "0.0"]
    assert [line.split() for line in lines if line.split()[:2] == ["b", "7"]]  # what differs: seed
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")


def test_names_that_matplotlib_would_interpret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["_old", "$a_{", os.fsdecode(b"caf\xe9")]
    for name in names:
        write_run(tmp_path / name, seed=0, errors=[0.5, 0.1])
    assert main(["report", *names, "--out", "all.svg"]) == 0
    assert capsys.readouterr().err == ""
    picture = (tmp_path / "all.svg").read_text("utf-8")
    assert all(f"<!-- {text} -->" in picture for text in (" _old", "$a_{", "caf?"))


@pytest.mark.parametrize(
    "arguments, text", [(["nowhere"], "is not a run directory"), (["a", "--out", "x.gif"], "x.gif")]
)
def test_mistakes(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", seed=0, errors=[0.5])
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
