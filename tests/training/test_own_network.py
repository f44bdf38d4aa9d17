"""A network of one's own, by its address, from training to a file of weights."""

import json

import numpy as np
import pytest
from small import assert_same_run, run, small_config

from jaxcnn.cli import main
from jaxcnn.evaluation.evaluate import open_entry
from jaxcnn.training import train
from jaxcnn.weights import load_pretrained

SOURCE = """
import flax.linen as nn

class MyNet(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(8, (3, 3), 2)(images))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))
"""
NAME = "my_nets.py:MyNet"


def test_from_training_to_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    config = small_config(model=NAME)
    run(config, tmp_path / "whole")
    recorded = json.loads((tmp_path / "whole" / "config.json").read_text())["config"]
    assert recorded["model"]["name"] == NAME

    for report in train(config, tmp_path / "parts"):
        if report.kind == "step" and report.step == 7:
            break
    run(config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")

    assert main(["evaluate", "whole"]) in (None, 0)
    assert "top-1" in capsys.readouterr().out
    entry = open_entry("whole")
    images = np.zeros((2, 8, 8, 3), np.float32)
    logits = entry.make().apply(entry.variables, images)
    assert main(["export", "whole", "own.safetensors"]) in (None, 0)
    with pytest.raises(ValueError, match="name that model to load them"):
        load_pretrained("own.safetensors")
    model, variables = load_pretrained("own.safetensors", model=NAME)
    np.testing.assert_array_equal(model.apply(variables, images), logits)


def one_error(capsys, *argv):
    """The line of an error that is a mistake."""
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxcnn: error: ") and err.count("\n") == 1, err
    return err


def test_code_that_has_changed_since_the_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    run(small_config(model=NAME), tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    (tmp_path / "my_nets.py").write_text(SOURCE.replace("nn.Conv(8", "nn.Conv(12"))
    difference = "params/BatchNorm_0/bias is (8,) in the checkpoint and (12,) in the network"
    longer = ("train", "--workdir", "run", "--extend", "train.length_steps=20")
    text = one_error(capsys, *longer)
    assert "the checkpoint of step 12 in" in text and difference in text
    assert (tmp_path / "run" / "config.json").read_bytes() == before, "the run is not longer"
    assert difference in one_error(capsys, "evaluate", "run")
    (tmp_path / "my_nets.py").write_text(SOURCE)
    assert main(["evaluate", "run"]) == 0


@pytest.mark.parametrize(
    "old, new, line, words",
    [
        ("    @nn.compact\n", "", 8, "@compact"),
        ("use_running_average=not train", "use_running_average=False", 10, "batch_stats"),
        ("return nn.Dense", "x = nn.Dropout(0.5)(x)\n        return nn.Dense", 11, "deterministic"),
        ("nn.relu(", "nn.rule(", 9, "no attribute 'rule'"),
        (  # only in training
            "return nn.Dense",
            "x = nn.Dropout(0.5, rng_collection='noise')(x, not train)\n        return nn.Dense",
            11,
            "noise",
        ),
    ],
)
def test_a_mistake_in_the_code_is_one_line(tmp_path, monkeypatch, capsys, old, new, line, words):
    assert old in SOURCE
    (tmp_path / "my_nets.py").write_text(SOURCE.replace(old, new))
    monkeypatch.chdir(tmp_path)
    text = one_error(capsys, "train", "lenet_digits:smoke", f"model.name={NAME}")
    assert f"the network '{NAME}' cannot be used: " in text and words in text
    assert f"my_nets.py, line {line}: " in text
    assert not (tmp_path / "runs").exists()


def test_values_that_are_not_finite_are_explained(tmp_path, monkeypatch):
    """It has no field `remat`, which the networks of the package have."""
    infinite = SOURCE.replace("x.mean((1, 2))", "x.mean((1, 2)) / (0.0 if train else 1.0)")
    (tmp_path / "my_nets.py").write_text(infinite)
    monkeypatch.chdir(tmp_path)
    config = small_config(model=NAME)
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+: "):
        run(config, tmp_path / "run")
