"""Figures of a step: XLA's counts against closed forms, and what the command prints and writes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxcnn.analysis import bench
from jaxcnn.cli import main
from jaxcnn.models.registry import model_info

MACHINE = bench.Machine("a device", {"float32": 1e9, "bfloat16": 2e9}, 1e8)
CONV1 = 28 * 28 * 6 * 5 * 5  # multiply-adds of LeNet-5's first layer, whose input has no gradient


@pytest.mark.parametrize("train", [True, False])
def test_counts_are_those_of_the_closed_form(train):
    (row,) = bench.bench(["lenet5"], train=train, batch=4, seconds=0.02, machine=MACHINE)
    info = model_info("lenet5")
    products = 3 * info.macs - CONV1 if train else info.macs
    np.testing.assert_allclose(row.flops, 2 * 4 * products, rtol=0.1)
    # at least: parameters, for training their momentum as well, and the images
    held = 4 * (info.params * (2 if train else 1) + 4 * 32 * 32)
    assert row.memory_bytes is not None and held < row.memory_bytes < 10 * held
    assert row.bytes is not None and row.bytes > held
    assert row.peak_share == pytest.approx(row.flops / row.step_seconds / 1e9)
    assert row.bandwidth_share == pytest.approx(row.bytes / row.step_seconds / 1e8)
    assert row.images_per_s == pytest.approx(4 / row.step_seconds)
    assert 0 < row.step_least <= row.step_most
    assert (row.model, row.mode, row.image_size) == (
        "lenet5_modern",
        "train" if train else "infer",
        32,
    )


def test_type_and_size_reach_the_program():
    sizes = {"train": False, "batch": 2, "image_size": 28}
    call, (variables, images) = bench.make_step("lenet5", dtype="bfloat16", **sizes)
    assert images.shape == (2, 28, 28, 1)
    assert "bf16" in call.lower(variables, images).as_text()
    call, arguments = bench.make_step("lenet5", dtype="float32", **sizes)
    assert "bf16" not in call.lower(*arguments).as_text()


def test_each_block_goes_on_from_the_state_before():
    step = jax.jit(lambda state, by: (state + by, state), donate_argnums=(0,))
    seen = []

    def call(state, by):
        seen.append(int(state))
        return step(state, by)

    times = bench.step_times(call, (jax.numpy.int32(0), 1), 0.01, keeps_state=True)
    assert seen == list(range(len(seen))) and len(times) < len(seen)


def test_command_prints_a_row_a_network_and_writes_all_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure_machine", lambda dtypes: MACHINE)
    path = tmp_path / "bench.json"
    code = main(
        [
            "bench",
            "lenet5",
            "--infer",
            "--batch-size",
            "2",
            "--seconds",
            "0.02",
            "--json",
            str(path),
        ]
    )
    out = capsys.readouterr().out.splitlines()
    assert code == 0 and out[0].startswith("a device: matrix product 1 GFLOP/s in float32")
    assert out[-1].split()[:5] == ["lenet5_modern", "infer", "2", "float32", "32"]
    found = json.loads(path.read_text())
    assert found["machine"] == dataclasses.asdict(MACHINE)
    assert set(found["rows"][0]) == {field.name for field in dataclasses.fields(bench.Bench)}


def test_machine_is_measured_in_each_type(monkeypatch):
    monkeypatch.setattr(bench, "_SIZES", {"cpu": (64, 1024)})
    machine = bench.measure_machine(("float32", "bfloat16"), seconds=0.01)
    assert set(machine.flops_per_s) == {"float32", "bfloat16"}
    assert min(machine.bytes_per_s, *machine.flops_per_s.values()) > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lene5"], "unknown model 'lene5'; did you mean"),
        (["lenet5", "--batch-size", "0"], "batch is 0; it must be at least 1"),
        (["lenet5", "--dtype", "float16"], "dtype is 'float16'; did you mean 'bfloat16' or"),
        (["lenet5", "--image-size", "20"], "images are 20x20; LeNet5Modern needs at least 28x28"),
        (["lenet5", "--seconds", "0"], "seconds is 0.0; it must be above 0"),
        (["lenet5", "--seconds", "inf"], "seconds is inf; it must be above 0 and finite"),
        (["lenet5", "--json", "/no/such/file"], "there is no directory /no/such"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_measured(arguments, text, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure_machine", lambda dtypes: pytest.fail("measured"))
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1 and not captured.out
