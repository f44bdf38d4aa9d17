"""The best checkpoint after a kill: known from what is there, and saved again where it is lost."""

import shutil

import jax
import numpy as np
import pytest
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn.training import load_run, train
from jaxcnn.training.output.metrics_files import read_rows, score


@pytest.fixture(scope="module")
def finished(tiny_network, tmp_path_factory):  # noqa: F811
    directory = tmp_path_factory.mktemp("best")
    run(small_config(), directory)
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def best_step(directory):
    return int(next(path.name for path in (directory / "best").iterdir()))


def lose(directory, how):
    step = best_step(directory)
    if how == "half written":
        (directory / "best" / f"{step}").rename(directory / "best" / f"{step}.orbax-checkpoint-tmp")
    elif how == "deleted":
        shutil.rmtree(directory / "best" / f"{step}")
    else:
        shutil.rmtree(directory / "best")


def assert_same_best(one, other):
    a, b = load_run(one), load_run(other)
    assert a.step == b.step
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(
    "how", ["half written", pytest.param("deleted", marks=pytest.mark.slow), "no folder"]
)
def test_it_is_saved_again(finished, copied, how):
    lose(copied, how)
    with pytest.raises(ValueError, match=r"no checkpoint in .*best; the newest one \(--checkpoint"):
        load_run(copied)
    reports = run(small_config(), copied, resume=True)
    notices = [r.values["text"] for r in reports if r.kind == "notice"]
    assert f"the best checkpoint, of step {best_step(finished)}, was missing and is" in notices[0]
    assert_same_best(copied, finished)
    assert_same_run(copied, finished)
    assert not any(r.kind == "notice" for r in run(small_config(), copied, resume=True))


def cut(directory, step):
    """A run as a kill leaves it after a checkpoint, whose best one was not yet written."""
    for name in ("checkpoints", "best"):
        for path in (directory / name).iterdir():
            if int(path.name) > step or name == "best":
                shutil.rmtree(path)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("step", [4, 8])
def test_a_run_that_goes_on_ends_with_the_same_one(finished, copied, step):
    cut(copied, step)
    scores = {r["step"]: score(r) for r in read_rows(finished) if r["kind"] == "eval"}
    first = min((s for s in scores if s <= step), key=lambda s: (scores[s], s))
    with train(small_config(), copied, resume=True) as reports:
        next(reports)
        assert any(path.name.startswith(str(first)) for path in (copied / "best").iterdir())
        list(reports)
    assert_same_best(copied, finished)
    assert_same_run(copied, finished)


@pytest.mark.usefixtures("tiny_network")
def test_a_better_one_that_is_nowhere_does_not_keep_the_next_from_being_saved(finished, copied):
    """The row of an evaluation outlives its checkpoint."""
    cut(copied, 8)
    rows = (copied / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(copied / "checkpoints" / "4")
    kept = [r for r in rows if '"step": 8' not in r or '"kind": "eval"' not in r]
    (copied / "metrics.jsonl").write_text("\n".join(kept) + "\n")  # only that of step 4
    run(small_config(), copied, resume=True)
    assert load_run(copied).step == 12
