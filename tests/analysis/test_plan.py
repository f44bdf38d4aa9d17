"""Plans: names of slices, peaks, counts of programs, and runs compiled for 8 CPU devices."""

import dataclasses
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.sharding import PartitionSpec as P

from jaxcnn._objects import pass_object
from jaxcnn.analysis import plan, plan_text, program_counts
from jaxcnn.analysis.chips import CHIPS, Chip, chip_of, parse_slice
from jaxcnn.analysis.program_counts import Collective, Counts
from jaxcnn.cli import main
from jaxcnn.models.registry import model_info
from jaxcnn.training import parallel
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig, default_config, read_config
from jaxcnn.training.input import loaders, sets

# Peaks of a device in the tests: it has the memory that a test needs.
CHIP = Chip("cpu", ("cpu",), {"float32": 1e9, "bfloat16": 1e9}, 2**30, 1e8, 1e7)


@pytest.fixture(scope="module", autouse=True)
def chip():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHIPS, "cpu", CHIP)
        yield


def digits(**train):
    config = read_config("lenet_digits")
    with config.unlocked():
        config.train.update(train)
    return config


def target(devices=8, **changed):
    return plan.Target("local", jax.devices()[:devices], dataclasses.replace(CHIP, **changed))


# --- names and peaks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, expected, chips",
    [
        ("v5litepod-1", "v5e:1x1", 1),
        ("v5litepod-8", "v5e:2x4", 8),
        ("v5litepod-256", "v5e:16x16", 256),
        ("V5E-16", "v5e:4x4", 16),
        ("v6e-8", "v6e:2x4", 8),
        ("v2-8", "v2:2x2", 4),
        ("v3-32", "v3:4x4", 16),
        ("v4-8", "v4:2x2x1", 4),
        ("v4-32", "v4:2x2x4", 16),
        ("v4-384", "v4:4x4x12", 192),
        ("v4-4096", "v4:8x16x16", 2048),
        ("v5p-128", "v5p:4x4x4", 64),
        ("v5p-12288", "v5p:16x16x24", 6144),
        ("v5:2x2x1", "v5p:2x2x1", 4),
        ("v5e:16x16", "v5e:16x16", 256),
    ],
)
def test_names_of_people_and_of_jax(name, expected, chips):
    found = parse_slice(name)
    assert (found.name, found.chips) == (expected, chips)
    assert all(whole % part == 0 for whole, part in zip(found.shape, found.host))


@pytest.mark.parametrize(
    "name, said",
    [
        ("v7-8", "TPU 'v7' is unknown; known are v2, v3"),
        ("v5d:2x2", "did you mean .*'v5e'"),
        ("v5e-2", "the size of a v5e slice must be one of 1, 4, 8, 16, 32, ..."),
        ("v4-12", "the size of a v4 slice must be one of 8, 16, 32, 64, 128, ..."),
        ("v5e:2x2x2", "a slice of v5e has 2 axes of one chip or more, as in v5e:2x2"),
        ("v5e:0x2", "a slice of v5e has 2 axes of one chip or more"),
        ("v5litpod-4", "did you mean .*'v5litepod'"),
        ("v5e-1000000000", "a slice of v5e has at most 256 chips|the size of a v5e slice must be"),
        ("h100:8", "it must be such as v5e:4x4.*; a GPU is planned where it is, as local"),
        ("v5e:32x32", "a slice of v5e has at most 256 chips"),
    ],
)
def test_a_slice_that_does_not_exist_is_one_line(name, said):
    with pytest.raises(ValueError, match=rf"^--on is '{name}'; .*{said}[^\n]*$"):
        parse_slice(name)


@pytest.mark.parametrize(  # whole pods, of the makers' pages: FLOP/s in bfloat16
    "name, chips, flops",
    [("v3", 1024, 126e15), ("v4", 4096, 1.1e18), ("v5e", 256, 50.63e15), ("v6e", 256, 234.9e15)],
)
def test_peaks_of_a_chip_add_up_to_those_of_a_pod(name, chips, flops):
    assert chips * CHIPS[name].flops_per_s["bfloat16"] == pytest.approx(flops, rel=0.03)


def test_a_device_is_found_by_what_jax_calls_it():
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)
    assert chip_of("TPU v5 lite") is CHIPS["v5e"] and chip_of("TPU v5") is CHIPS["v5p"]
    assert chip_of("NVIDIA H200") is CHIPS["h200"] and chip_of("abacus") is None


def test_least_seconds_are_those_of_the_closed_form():
    counts = Counts(
        2e9, 5e8, 3e8, {}, {"all-reduce": Collective(1, 8e6), "all-gather": Collective(2, 4e6)}
    )
    found = plan.least_seconds(counts, CHIP, "float32", 4)
    sent = 2 * 3 / 4 * 8e6 + 3 / 4 * 4e6
    assert found == pytest.approx({"arithmetic": 2, "memory": 3, "collectives": sent / 1e7})
    one = plan.least_seconds(counts, dataclasses.replace(CHIP, devices=2), "float32", 1)
    assert one == pytest.approx({"arithmetic": 4, "memory": 6, "collectives": 0})


# --- counts -------------------------------------------------------------------------------------


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    mesh = parallel.make_mesh(4)

    def step(x):
        def once(x, _):
            return lax.psum(x @ x, "data"), None

        with jax.named_scope("seven"):
            x, _ = lax.scan(once, x, length=7)
        return lax.psum(x.sum(), "data"), lax.all_gather(x[0], "data")

    mapped = jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    compiled = jax.jit(mapped).lower(jnp.ones((16, 16))).compile()
    counts = program_counts.count(compiled)
    assert counts.loops == {"seven": 7}
    sums, gathers = counts.collectives["all-reduce"], counts.collectives["all-gather"]
    assert sums == Collective(8, 7 * 16 * 16 * 4 + 4) and gathers == Collective(1, 4 * 16 * 4)
    assert counts.bytes > 7 * 3 * 16 * 16 * 4  # XLA counts the loop once
    assert compiled.cost_analysis()["bytes accessed"] < counts.bytes
    assert counts.divided(2).collectives["all-reduce"].count == 4


def test_started_collectives_and_tuples_of_them():
    text = """
HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8], y: bf16[4]) -> f32[8] {
  %x = f32[8]{0:T(256)} parameter(0)
  %y = bf16[4]{0} parameter(1)
  %started = (f32[8]{0:T(256)}, bf16[4]{0}) all-reduce-start(%x, %y), to_apply=%sum
  %done = (f32[8]{0:T(256)}, bf16[4]{0}) all-reduce-done(%started)
  %gather = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), dimensions={0}
  %gathered = f32[32]{0} all-gather-done(%gather)
  ROOT %out = f32[8]{0:T(256)} get-tuple-element(%done), index=0
}
"""
    found = program_counts.collectives(list(program_counts.instructions(text)))
    assert found["all-reduce"] == Collective(1, 8 * 4 + 4 * 2)
    assert found["all-gather"] == Collective(1, 32 * 4)


def test_a_loop_whose_iterations_the_program_does_not_state():
    """As in a program for a TPU."""
    text = """
HloModule step

%body (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %sum = f32[8]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %out = f32[8]{0} while(%x), condition=%c, body=%body, metadata={op_name="jit(f)/steps/while"}
}
"""
    for trips, times in (({"steps": 5}, 5), ({"microbatches": 5}, 1)):
        program = list(program_counts.instructions(text, trips))
        assert program_counts.collectives(program) == {"all-reduce": Collective(times, times * 32)}


def test_collectives_inside_of_fusions():
    text = """
HloModule step

%fused (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  ROOT %part = f32[2]{0} reduce-scatter(%x), dimensions={0}, to_apply=%sum
}

ENTRY %main (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  ROOT %out = f32[2]{0} fusion(%x), kind=kCustom, calls=%fused
}
"""
    program = list(program_counts.instructions(text, inside_fusions=True))
    found = program_counts.collectives(program)
    assert found == {"reduce-scatter": Collective(1, 8)}
    counts = Counts(0, 0, 0, {}, found)
    chip = dataclasses.replace(CHIPS["v5e"], link_bytes_per_s=1.0)
    assert plan.least_seconds(counts, chip, "float32", 4)["collectives"] == 3 * 8


def test_a_barrier_moves_nothing():
    text = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %tuple = (f32[8]{0}) tuple(%x)
  %barrier = (f32[8]{0}) opt-barrier(%tuple)
  %y = f32[8]{0} get-tuple-element(%barrier), index=0
  ROOT %out = f32[8]{0} add(%y, %y)
}
"""
    moved = program_counts.moved_bytes(list(program_counts.instructions(text)))
    assert [one.name for one, _, _ in moved] == ["out"]


def test_traffic_leaves_out_what_stays_on_the_chip():
    text = """
ENTRY %main (x: f32[8], y: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(256)} parameter(0)
  %y = f32[8]{0:T(256)} parameter(1)
  %inner = f32[8]{0:T(256)S(1)} multiply(%x, %y)
  %copied = (f32[8]{0:T(256)S(1)}, f32[8]{0:T(256)}, u32[]{:S(2)}) copy-start(%x)
  %arrived = f32[8]{0:T(256)S(1)} copy-done(%copied)
  %sliced = ((f32[8]{0:T(256)}), f32[2]{0:T(256)S(1)}, s32[]{:S(2)}) slice-start(%y), slice={[0:2]}
  ROOT %out = f32[8]{0:T(256)} add(%inner, %arrived)
}
"""
    moved = program_counts.moved_bytes(list(program_counts.instructions(text)))
    found = {one.name: (size, outside) for one, size, outside in moved}
    assert found == {"inner": (96, 64), "copied": (64, 32), "sliced": (16, 8), "out": (96, 32)}


# --- the run's own step ---------------------------------------------------------------------------


def facts(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)


def test_abstract_batches_are_those_that_the_loaders_place():
    experiment = build_experiment(TrackedConfig(digits(devices=4, batch_size=8)))
    loader = loaders.train_loader(experiment, 0, None)
    for count in (1, 3):
        assert facts(loaders.abstract_batch(experiment, count)) == facts(loader.batch(0, count))
    batch = next(loaders.eval_loader(experiment)())
    assert facts(loaders.abstract_eval_batch(experiment)) == facts(batch)


def test_abstract_batches_of_photos(tmp_path):
    parts = {"train": {"ant": 5, "bee": 5}, "val": {"ant": 3, "bee": 3}}
    photos.write_folder(tmp_path, parts, 40, 48)
    config = digits(devices=2, batch_size=4)
    with config.unlocked():
        config.model.name, config.data.source = "resnet18", f"folder:{tmp_path}"
        config.data.update({"image_size": 32, "eval_size": 40, "eval_resize": 44})
        config.data.augment, config.eval.batch_size = (("flip", 0.5),), 3
        config.model.options = {"width": 4, "blocks": (1, 1, 1, 1), "stem": (4,)}
    experiment = build_experiment(TrackedConfig(config))
    loader = loaders.train_loader(experiment, 0, None)
    assert facts(loaders.abstract_batch(experiment)) == facts(loader.batch(0, 1))
    loader.close()
    batch = next(loaders.eval_loader(experiment)())
    assert facts(loaders.abstract_eval_batch(experiment)) == facts(batch)


@pytest.fixture(scope="module")
def lenet():
    return plan.plan_for(digits(bn_sync="local"), target())


def test_a_run_on_eight_virtual_devices(lenet):
    info = model_info("lenet5_modern")
    first = 5 * 5 * 6 * 28 * 28  # the images of the first layer have no gradient
    products = 2 * 64 / 8 * (3 * info.macs - first)
    assert 0.9 * products < lenet.train.flops < 2 * products  # a CPU's forms multiply by zeros
    reduced = lenet.train.collectives["all-reduce"]
    assert set(lenet.train.collectives) == {"all-reduce"}
    assert 4 * info.params <= reduced.bytes < 4 * info.params + 200  # and the metrics
    assert set(lenet.evaluate.collectives) == {"all-reduce"}
    held = 2 * 4 * info.params  # with momentum
    assert held < lenet.train.memory["arguments"] < lenet.train.memory_bytes
    assert lenet.evaluate.flops > 0 and lenet.devices == 8 and lenet.processes == 1
    steps = math.floor(40 * 1437 / 64)
    assert abs(lenet.total_steps - steps) <= 1 and lenet.evaluations == 40 and lenet.eval_steps == 2


def test_time_and_throughput_follow_from_the_counts(lenet):
    assert lenet.step_seconds == max(lenet.seconds.values())
    assert lenet.images_per_s == pytest.approx(64 / lenet.step_seconds)
    evaluation = 40 * 2 * max(lenet.eval_seconds.values())
    assert lenet.hours == pytest.approx(
        (lenet.total_steps * lenet.step_seconds + evaluation) / 3600
    )
    unknown = dataclasses.replace(lenet, chip=None, seconds={}, eval_seconds={})
    assert unknown.images_per_s is None and "at most" not in plan_text.to_text(unknown)


def test_several_steps_in_a_call_and_microbatches_count_for_one_step(lenet):
    several = plan.plan_for(digits(bn_sync="local", steps_per_call=5), target())
    assert several.train.loops["steps"] == 5
    reduced = several.train.collectives["all-reduce"]
    expected = lenet.train.collectives["all-reduce"].bytes
    assert reduced.bytes == pytest.approx(expected, rel=1e-3)  # a constant's sum leaves the loop
    assert several.train.flops == pytest.approx(lenet.train.flops, rel=0.1)
    assert several.train.bytes == pytest.approx(lenet.train.bytes, rel=0.5)
    # A CPU's microbatches are no loop, so that the one of four iterations is that of the steps.
    both = plan.plan_for(digits(bn_sync="local", steps_per_call=4, accumulate=4), target())
    assert both.train.flops == pytest.approx(lenet.train.flops, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("values", ["2", "schedule.learning_rate=0.1,0.2"])
def test_members_that_share_a_device(values):
    config = digits(members=values, ensemble_mode="vmap", batch_size=8)
    both = plan.plan_for(config, target(1))
    assert both.members == 2 and both.devices == 1 and not both.train.collectives
    assert both.train.memory["arguments"] > 2 * 2 * 4 * both.params
    assert "2 runs together" in plan_text.to_text(both)


def test_a_data_set_that_is_not_here_is_planned_by_its_published_sizes(tmp_path):
    config = read_config("cifar_resnet", ["data.train_split=train[:90%]"])
    with config.unlocked():
        config.data.dir = str(tmp_path)
    train, test, stream = sets.stand_in_sets(TrackedConfig(config))
    assert (len(train), len(test), train.num_classes, stream) == (45_000, 10_000, 10, None)
    assert train.images.shape == (45_000, 32, 32, 3) and train.images.strides == (0, 0, 0, 0)
    photos = read_config("resnet_imagenet")
    train, test, stream = sets.stand_in_sets(TrackedConfig(photos))
    assert (len(train), len(test), train.num_classes) == (1_281_167, 50_000, 1000)
    assert stream.image_size == 224
    assert sets.stand_in_sets(TrackedConfig(default_config())) is None
    with pytest.raises(ValueError, match="cannot be read"):
        train.read(0)


# --- what a slice would say hours later -----------------------------------------------------------


def test_a_batch_that_cannot_be_split_is_one_line(capsys):
    assert main(["plan", "lenet_digits", "train.batch_size=60", "--on", "local"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "cannot be split evenly over 8 devices" in said[0]


def test_images_that_are_too_small_are_one_line(capsys):
    assert main(["plan", "cifar_resnet:smoke", "model.name=alexnet", "--on", "local"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "images are 32x32; AlexNet needs at least" in said[0]


def test_an_operation_that_does_not_lower_is_one_line():
    strange = Primitive("strange")
    strange.def_abstract_eval(lambda x: x)

    def loss(logits, labels):
        return logits.sum(-1) + strange.bind(lax.stop_gradient(logits)).sum(-1)

    config = digits()
    with config.unlocked():
        config.loss = {"name": pass_object(loss, "loss")}
    with pytest.raises(
        ValueError,
        match=r"^an operation of the network cannot be lowered for 'cpu': .*strange[^\n]*$",
    ):
        plan.plan_for(config, target())


def test_too_little_memory_is_one_line(capsys, monkeypatch, tmp_path, lenet):
    del lenet  # the same program, which comes from the cache
    monkeypatch.setattr(plan, "find_target", lambda name: target(memory_bytes=1e6))
    out = tmp_path / "plan.json"
    command = ["plan", "lenet_digits", "train.bn_sync=local", "--on", "local", "--json", str(out)]
    assert main(command) == 3
    [line] = capsys.readouterr().out.splitlines()
    assert (
        "lenet5_modern with config.train.batch_size 64 does not fit on local: the training" in line
    )
    assert line.endswith("; --fit finds the largest batch size that does")
    [found] = json.loads(out.read_text())
    assert (found["fits"], found["target"]) == (False, "local") and "training" in found["reason"]


@pytest.mark.slow
def test_the_largest_batch_fits_and_a_slightly_larger_one_does_not(capsys, monkeypatch):
    small = target(2, memory_bytes=8e6)
    monkeypatch.setattr(plan, "find_target", lambda name: small)
    command = ["plan", "lenet_digits", "train.batch_size=2048", "--on", "local", "--fit"]
    assert main(command) == 3
    *_, line = capsys.readouterr().out.strip().splitlines()
    words = line.replace(",", "").replace(";", "").split()
    fits, too_large = (int(word) for word in words if word.isdigit())
    assert 0 < fits < too_large < 2048 and too_large - fits <= max(2, fits / 16)
    assert plan._memory_of(digits(), small, fits) <= 8e6


@pytest.mark.parametrize("unit", [1, 8, 96])
@pytest.mark.parametrize("start", [96, 960, 96_000])
@pytest.mark.parametrize("power", [0.9, 1.0, 1.15])
def test_the_search_for_a_batch_ends_near_the_largest(unit, start, power):
    def need(size):
        tried.append(size)
        return 1e6 + 2e3 * size**power, 1e7

    tried = []
    fits, too_large = plan.search(need, unit, start)
    assert len(tried) == len(set(tried)) <= 8 and all(size % unit == 0 for size in tried)
    assert need(fits)[0] <= 1e7 < need(too_large)[0]
    assert too_large - fits <= max(unit, fits / 16)


def test_the_search_ends_where_nothing_fits():
    assert plan.search(lambda size: (2.0, 1.0), 8, 64) == (0, 8)


def test_without_the_compiler_for_tpus_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)  # as where it is not installed
    assert main(["plan", "lenet_digits", "--on", "v5e:2x2"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'jaxcnn[tpu]'")


# --- text -----------------------------------------------------------------------------------------


STORED = plan.Plan(
    model="resnet50", dtype="bfloat16", target="v5e:2x2", chip="v5e", device_kind="TPU v5 lite",
    devices=4, processes=2, batch_size=512, eval_batch_size=256, mode="shard_map",
    bn_sync="local", members=1, runs=1, params=25_557_032, total_steps=225_205, evaluations=90,
    eval_steps=196, streamed=True,
    train=Counts(
        flops=3.0e12, bytes=60e9, traffic=50e9,
        memory={"arguments": 2**28, "results": 2**10, "temporaries": 2**32, "program": 2**25},
        collectives={"all-reduce": Collective(2, 102e6)},
    ),
    evaluate=Counts(5e11, 4e9, 4e9, {"arguments": 2**27, "temporaries": 2**30}, {}),
    seconds={"arithmetic": 3.0e12 / 197e12, "memory": 50e9 / 819e9, "collectives": 0.765e-3},
    eval_seconds={"arithmetic": 5e11 / 197e12, "memory": 4e9 / 819e9, "collectives": 0.0},
    memory_limit=2**34, stand_in=True,
)  # fmt: skip
TEXT = """
resnet50 on v5e:2x2 (TPU v5 lite): 4 chips of 2 hosts, batch size 512 (128 for each), bfloat16, \
shard_map, BatchNorm local
note: the data are not available; their published sizes are used

training step, for one chip, as counted by XLA
  memory 4.28 GiB of 16.00 GiB: arguments 256.0 MiB, results 0.0 MiB, temporaries 4.00 GiB, \
program 32.0 MiB
                      amount           at  ms at least
----------------  ----------  -----------  -----------  ---------
  arithmetic      3.00 TFLOP  197 TFLOP/s       15.228
  memory traffic    50.00 GB     819 GB/s       61.050  <- bounds
  collectives      102.00 MB     200 GB/s        0.765
  collectives: 2 all-reduce of 102.00 MB
  not included: 10.00 GB that operations move within on-chip memory

evaluation step, for one chip, as counted by XLA
  memory 1.12 GiB of 16.00 GiB: arguments 128.0 MiB, temporaries 1.00 GiB
                        amount           at  ms at least
----------------  ------------  -----------  -----------  ---------
  arithmetic      500.00 GFLOP  197 TFLOP/s        2.538
  memory traffic       4.00 GB     819 GB/s        4.884  <- bounds
  collectives              0 B     200 GB/s        0.000
  collectives: none

at most 2,097 images/s for one chip and 8,387 images/s in all
the run: 225,205 steps and 90 evaluations of 196 batches take at least 3.84 hours
input: at this rate, each of 2 hosts must decode 4,193 images/s
"""


def test_text_of_stored_counts():
    text = plan_text.to_text(STORED)
    assert text.splitlines() == TEXT.strip("\n").splitlines()


def test_a_core_of_two_has_half_of_a_chip():
    text = plan_text.to_text(dataclasses.replace(STORED, chip="v3", target="v3:2x2", devices=8))
    assert (
        "of one of" not in text
        and "8 cores" in text
        and "61.5 TFLOP/s" in text
        and "450 GB/s" in text
    )


def test_times_of_a_part_of_the_runs():
    one, two = (dataclasses.replace(STORED, runs=6, members=n) for n in (1, 2))
    assert "note: the times are those of one of 6 runs" in plan_text.to_text(one)
    assert "note: the times are those of 2 of 6 runs" in plan_text.to_text(two)
    evaluations = 90 * 196 * max(STORED.eval_seconds.values()) / 3600
    assert two.hours == pytest.approx(one.hours + evaluations)


def test_json_has_what_follows_from_the_counts(lenet):
    fields = json.loads(json.dumps(plan_text.to_json(lenet)))
    assert fields["images_per_s"] == lenet.images_per_s and fields["hours"] == lenet.hours
    assert fields["train"]["collectives"]["all-reduce"]["bytes"] > 0
    assert np.isfinite(fields["step_seconds"])
