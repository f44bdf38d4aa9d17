"""What a run does when it is asked to: traces, Weights & Biases, deterministic programs."""

import sys
import types

import jax.numpy as jnp
import pytest
from small import run, small_config, tiny_network  # noqa: F401
from test_resume import stop_at

from jaxcnn.runtime import compilation
from jaxcnn.training import parallel
from jaxcnn.training.output.metrics_files import read_rows

pytestmark = pytest.mark.usefixtures("tiny_network")


def test_a_trace_is_written_and_deleted_with_the_run(tmp_path):
    config = small_config(steps=6)
    config.log.profile = 2
    reports = run(config, tmp_path)
    told = [r.values["text"] for r in reports if r.kind == "notice"]
    assert len(told) == 1 and told[0].startswith("a trace of 2 calls is in ")
    assert len(list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))) == 1
    config.log.profile = 0
    run(config, tmp_path, overwrite=True)
    assert not (tmp_path / "profile").exists()


@pytest.mark.slow
def test_a_trace_is_ended_with_a_short_run(tmp_path):
    config = small_config(steps=3)
    config.log.profile = 50
    run(config, tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_without_weights_and_biases_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = small_config()
    config.log.wandb = "nets"
    with pytest.raises(ValueError, match=r"log\.wandb is 'nets', .*pip install 'jaxcnn\[wandb\]'"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_go_to_weights_and_biases_under_one_id(tmp_path, monkeypatch):
    """A stand-in for the service, which takes an account: it notes what it is given."""
    begun, rows = [], []

    class Run:
        id = "abc123"
        define_metric = staticmethod(lambda *a, **k: None)
        log = staticmethod(rows.append)
        finish = staticmethod(lambda: rows.append("end"))

    def init(**options):
        begun.append(options)
        return Run()

    module = types.ModuleType("wandb")
    module.init, module.__spec__ = init, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)
    config = small_config()
    config.log.wandb = "nets"
    stop_at(6, 15, config, tmp_path)
    run(config, tmp_path, resume=True)
    assert [b["id"] for b in begun] == [None, "abc123"] and begun[0]["project"] == "nets"
    assert begun[0]["config"]["train.batch_size"] == 48
    assert rows.count("end") == 2 and rows[-1] == "end"
    sent = [row for row in rows if row != "end"]
    written = read_rows(tmp_path)
    assert [row["step"] for row in sent] == [row["step"] for row in written]
    assert sent[-1]["eval/loss"] == written[-1]["loss"]


def test_deterministic_options_are_known_to_the_compiler():
    assert compilation.accepted(compilation.GPU_DETERMINISTIC) == compilation.GPU_DETERMINISTIC
    assert compilation.jit(jnp.sin, deterministic=True)(0.0) == 0


def test_pmap_cannot_be_deterministic():
    with pytest.raises(ValueError, match="deterministic is set; parallel must be 'jit'"):
        parallel.parallelize(lambda *a: a, "pmap", parallel.make_mesh(2), deterministic=True)
