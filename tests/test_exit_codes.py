"""Exit codes: 1 is a loss that is not finite and nothing else; what went wrong is one line."""

import jax
import pytest

from jaxcnn.cli import list as list_command
from jaxcnn.cli import main
from jaxcnn.cli.train import _good_checkpoint, train_and_show
from jaxcnn.reporting.report import Report
from jaxcnn.runtime import exit_codes
from jaxcnn.training.config.files import read_config
from jaxcnn.training.train import Training, train

LONG = "RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.\n" + "buffer 1\n" * 1000
ERRORS = [
    (FloatingPointError("the loss is nan"), exit_codes.NOT_FINITE, exit_codes.NOT_FINITE),
    (ValueError("no record\ncan be read"), exit_codes.MISTAKE, exit_codes.MISTAKE),
    (FileNotFoundError(2, "No such file", "x"), exit_codes.MISTAKE, exit_codes.FAILED),
    (OSError(28, "No space left on device", "x"), exit_codes.MISTAKE, exit_codes.FAILED),
    (jax.errors.JaxRuntimeError(LONG), exit_codes.RUNTIME_ERROR, exit_codes.RUNTIME_ERROR),
    (MemoryError(), exit_codes.RUNTIME_ERROR, exit_codes.RUNTIME_ERROR),
]
UNEXPECTED = [RuntimeError("what?"), KeyError("a"), AssertionError(), RecursionError("deep")]


def ending(error, begun):
    """A training that ends so, at once or under way."""

    def reports(stop):
        if begun:
            yield Report("notice", 0, 0.0, {"text": "under way"})
        raise error

    return lambda *_, **__: Training(reports)


@pytest.mark.parametrize(("error", "before", "after"), ERRORS)
@pytest.mark.parametrize("begun", [False, True])
def test_each_kind_of_error_has_its_code(tmp_path, capsys, error, before, after, begun):
    code = train_and_show({"data": {}}, tmp_path, train=ending(error, begun))
    assert code == (after if begun else before)
    text = capsys.readouterr().err
    assert text.startswith("train.py: ") and text.count("\n") == 1 and len(text) < 500


@pytest.mark.parametrize("error", UNEXPECTED)
def test_an_error_that_was_not_foreseen_shows_where(tmp_path, capsys, error):
    assert train_and_show({"data": {}}, tmp_path, train=ending(error, True)) == exit_codes.BUG
    text = capsys.readouterr().err
    assert "Traceback" in text and "train.py: unexpected error" in text.splitlines()[-1]


@pytest.mark.parametrize(("error", "code", "_"), ERRORS)
def test_the_other_commands_have_the_same_codes(monkeypatch, capsys, error, code, _):
    def fails(args):
        raise error

    monkeypatch.setattr(list_command, "run", fails)
    assert main(["list"]) == code
    text = capsys.readouterr().err
    assert text.startswith("jaxcnn: ") and text.count("\n") == 1


def test_debug_shows_where_and_keeps_the_code(tmp_path, monkeypatch, capsys):
    def check(error, code, **options):
        assert train_and_show({"data": {}}, tmp_path, train=ending(error, True), **options) == code
        text = capsys.readouterr().err
        assert "Traceback" in text and text.splitlines()[-1].startswith("train.py: ")

    check(OSError("x"), exit_codes.FAILED, debug=True)
    monkeypatch.setenv("JAXCNN_DEBUG", "1")
    for error, _, code in ERRORS:
        check(error, code)
    check(KeyError("x"), exit_codes.BUG)


def test_an_interruption_is_one_line(tmp_path, capsys):
    assert train_and_show({"data": {}}, tmp_path, train=ending(KeyboardInterrupt(), True)) == 130
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "since the last checkpoint, if any, were not saved" in text


@pytest.mark.parametrize(
    "when", ["compiled", pytest.param("eval", marks=pytest.mark.slow), "checkpoint"]
)
def test_a_directory_that_is_removed_under_way_ends_the_run(tmp_path, capsys, when):
    """At the next row or checkpoint, not after hours."""
    config = read_config("lenet_digits:smoke", ["train.devices=1", "eval.every_steps=2"])
    config.checkpoint.every_steps, config.train.length_steps = 2, 400
    workdir = tmp_path / "run"

    def removing(stop):
        for report in train(config, workdir):
            yield report
            assert report.step < 10, "it goes on"
            if report.kind == when and workdir.exists():
                workdir.rename(tmp_path / "gone")  # at once, whatever is being written

    code = train_and_show(config, workdir, train=lambda *_, **__: Training(removing))
    assert code == exit_codes.FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{workdir}" in error, error


@pytest.mark.parametrize(
    "text",
    ["c.model.nmae = 'x'", "c.train.batch_size = 'x'", "return None", "exit(1)", "c = 1 / 0"],
)
def test_a_mistake_in_a_configuration_file_is_no_loss(tmp_path, capsys, text):
    path = tmp_path / "slip.py"
    begin = "from jaxcnn.training.config import default_config\n\ndef get_config(arg=None):\n"
    path.write_text(f"{begin}    c = default_config()\n    {text}\n    return c\n")
    for command in ("train", "show-data"):
        assert main([command, str(path)]) == exit_codes.MISTAKE
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "slip.py" in error, error


def test_a_run_that_is_not_finite_names_the_checkpoint_it_left(tmp_path):
    assert _good_checkpoint(tmp_path) == ""  # several runs, each in a directory of its own
    (tmp_path / "checkpoints").mkdir()
    assert _good_checkpoint(tmp_path) == "; no checkpoint was saved"
    for step in ("400", "1200", "1600.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir()
    assert _good_checkpoint(tmp_path) == "; the checkpoint of step 1,200 is good"
