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
