"""The pages of benchmarks/ hold what the result files say."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

import jaxcnn
from jaxcnn.training import read_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts import each other

import page_parts  # noqa: E402


def script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tables():
    return script("tables")


def test_pages_are_those_that_the_result_files_make(tables):
    for path, text in tables.made().items():
        assert path.read_text("utf-8") == text, f"{path} is stale: python benchmarks/tables.py"


def test_every_result_file_is_shown(tables):
    shown = {f"{name}.json" for _, name, _, _ in tables.SUBJECTS}
    assert {path.name for path in page_parts.RESULTS.glob("*.json")} <= shown


MACHINE = {
    "cpu": "A processor", "cores": 4, "devices": ["cpu"], "device_count": 1, "python": "3.12.1",
    "versions": {"jax": "0.10.1"}, "date": "2026-01-02",
    "torch": {"versions": {"torch": "2.0"}, "threads": 4},
}  # fmt: skip


def comparison(model, mode, batch, seconds, eager, compiled):
    def form(value):
        ratio = seconds / value
        return {"seconds": value, "ratio": ratio, "ratio_min": ratio, "ratio_max": ratio}

    forms = {"jaxcnn": form(seconds), "eager": form(eager), "compile": form(compiled)}
    best = min(("eager", "compile"), key=lambda name: forms[name]["seconds"])
    row = {"model": model, "mode": mode, "batch": batch, "dtype": "float32", "forms": forms}
    ratios = {"ratio": forms["eager"]["ratio"], "ratio_to_best": forms[best]["ratio"]}
    return row | ratios | {"best": best, "pairs": 2}


@pytest.fixture
def planted(tables, tmp_path, monkeypatch):
    """Result files of round figures in place of the real ones."""
    monkeypatch.setattr(page_parts, "RESULTS", tmp_path)
    mean = {"models": 2, "ratio": 0.75, "ratio_to_best": 0.9, "worst": 1.5}
    rows = [
        comparison("resnet18", "train", 16, 0.16, 0.32, 0.2),  # 100 images/s
        comparison("resnet50", "train", 8, 0.16, 0.16, 0.2),  # 50 images/s
        comparison("lenet5", "train", 128, 0.001, 0.002, 0.002),  # no photos
    ]
    found = {"machine": MACHINE, "rows": rows, "summary": {"train float32": mean}}
    (tmp_path / "against_torch.json").write_text(json.dumps(found))

    def decode(rate):
        row = {"name": "jaxcnn", "images_per_s": rate, "speed": 2.0, "speed_min": 1, "speed_max": 3}
        found = {"machine": MACHINE, "files": 9, "size": 224, "rows": [row]}
        (tmp_path / "input_pipeline.json").write_text(json.dumps(found))

    decode(400.0)
    return decode


def test_a_gpus_mean_is_of_rows_with_both_forms_of_pytorch(tables, planted, tmp_path):
    def row(model, seconds, mode="train", **theirs):
        forms = {form: {"seconds": value} for form, value in theirs.items()}
        best = min(theirs, key=theirs.get)
        ratio = seconds / theirs[best]
        ends = {"ratio": ratio, "ratio_min": ratio, "ratio_max": ratio}
        forms["jaxcnn"] = {"seconds": seconds}
        return {"model": model, "mode": mode, "batch": 8, "dtype": "bfloat16", "rounds": 3,
                "best": best, "forms": forms, **ends}  # fmt: skip

    rows = [
        row("resnet50", 0.01, channels_last=0.04, compile=0.02),
        row("vgg16", 0.02, channels_last=0.01, compile=0.04),
        row("dpn92", 0.01, channels_last=0.1),
        row("vgg16", 0.5, "infer", channels_last=0.1, compile=0.25),
    ]
    gpu = {**MACHINE, "devices": ["A GPU"]}
    (tmp_path / "gpu_against_torch.json").write_text(json.dumps({"machine": gpu, "rows": rows}))
    page, headline = tables.page(), tables.headline()
    assert "| geometric mean where both |  |  |  |  |  |  | 1.00 |  |  |" in page
    assert (
        "| 400 | 2.00 | [2.00, 2.00] | 0.50, 4.00, 0.50 |" in page
    )  # VGG-16, half as fast as ResNet-50
    assert (
        "step of jaxcnn in inference" in page
        and "| geometric mean where both |  |  |  |  |  |  | 5.00 |" in page
    )
    assert "on A GPU, 2 networks | 1.00 (worst 2.00) |" in headline
    assert "| `resnet50` on A GPU, images/s in training, and PyTorch's | 800, 400 |" in headline


def test_figures_come_from_the_files_with_machine_and_date(tables, planted):
    page = tables.page()
    assert "A processor, 4 cores; Python 3.12.1, jax 0.10.1; 2026-01-02. `python benchmarks" in page
    assert "| `resnet18` | 16 | 160.0 | 320.0 | 200.0 | compile | 0.50 | [0.50, 0.50] |" in page
    assert "| `resnet50` | 8 | 160.0 | 160.0 | 160.0 | eager | 1.00 | [1.00, 1.00] | 1.00 |" in page
    assert "`python benchmarks/grouped_conv.py` writes results/grouped_conv.json" in page
    told = tables.headline()
    assert "relative to PyTorch 2.0 on A processor, 3 networks | " in told
    assert "of its fastest form (geometric mean; worst 1.00); 0.75 of its default one |" in told
    assert "| The CIFAR recipes on a GPU | not measured yet" in told


def test_one_sentence_says_what_limits_a_run(tables, planted):
    assert "`resnet18` 100.0, `resnet50` 50.0. So the step limits" in tables.page()
    assert "decoding takes at most 25% of a core" in tables.page()
    planted(80.0)
    assert "one core of decoding limits `resnet18`, the step all others." in tables.page()


def test_a_gpu_is_shown_when_it_was_measured(tables, planted):
    machine = MACHINE | {"devices": ["A GPU"]}
    shared = {"batch": 128, "dtype": "float32"}
    rows = [
        {"subject": "recipe", "model": "resnet20_cifar", "steps_per_s": 800.0, "steps": 64000,
         "minutes": 1.5, "images_per_s": 102400.0, **shared},
        {"subject": "seeds", "model": "lenet5", "members": 7, "ratio": 0.25, **shared},
        {"subject": "run", "model": "resnet18", "steps": 5, "seconds": 90.0, "test_error": 0.04,
         "first_step_seconds": 8.0, **shared},
    ]  # fmt: skip
    (page_parts.RESULTS / "gpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    assert "4 cores, 1 x A GPU; Python" in tables.page()
    assert "800.0 | 102,400 | 1.50 min for 64,000 steps |" in tables.page()
    assert "7 seeds at 0.25 of as many runs" in tables.page()
    assert "`resnet20_cifar`, float32, 64,000 steps of 128 on A GPU | 1.5 min" in tables.headline()
    assert "5 steps in 90 s, the first after 8 s: test error 4.00 % |" in tables.page()
    assert "`resnet18`, float32, CIFAR-10 on A GPU: a whole run" in tables.headline()


def test_only_what_is_between_the_marks_changes(tables):
    document = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    assert tables.insert(document, "new") == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        tables.insert(f"before\n{tables.BEGIN}\nold\n", "new")


def pair(ours, theirs, params=7):
    """What a process of `against_torch.py` answers: seconds by round."""
    built = {"jaxcnn": {"params": 7, "first_seconds": 3.0}}
    built["eager"] = {"params": params, "first_seconds": 1.0}
    return built, {"jaxcnn": ours, "eager": theirs}


COMPILED = {"jaxcnn": {"params": 7, "first_seconds": 30.0}}, {}  # no round


def compared(*answers):
    """A row of two pairs, and the bounds that each process was given."""
    answers, given = iter(answers), []

    def measured(**bounds):
        given.append((bounds["rounds"], bounds["limit"]))
        return next(answers)

    row = script("against_torch").measure_pairs(2, 5, 9.0, ["eager"], measured)
    return row, given


def test_a_comparison_takes_the_rounds_of_all_pairs_and_none_of_a_process_that_compiled():
    rounds = pair([1.0, 2.0], [2.0, 2.0]), pair([6.0, 4.0], [2.0, 2.0])
    row, given = compared(COMPILED, *rounds)
    assert given == [(5, 9.0), (5, 9.0), (2, float("inf"))]  # as many rounds in the second pair
    assert (row["rounds"], row["pairs"], row["params"], row["best"]) == (4, 2, 7, "eager")
    assert (row["ratio"], row["forms"]["jaxcnn"]["seconds"]) == (1.5, 3.0)
    assert (row["forms"]["eager"]["ratio_min"], row["forms"]["eager"]["ratio_max"]) == (0.5, 3.0)
    assert compared(*rounds)[0]["forms"] == row["forms"]


def test_a_comparison_is_refused_without_a_cache_and_with_another_network():
    with pytest.raises(RuntimeError, match="the cache does not keep them"):
        compared(COMPILED, pair([1.0], [1.0]), COMPILED)
    with pytest.raises(RuntimeError, match="parameters differ"):
        compared(pair([1.0], [1.0]), pair([1.0], [1.0], params=8))


HLO = """HloModule jit_step

%fused (a: bf16[4,8]) -> bf16[4,8] {
  ROOT %b = bf16[4,8]{1,0} negate(%a)
}

ENTRY %main (x: f32[4,8], w: bf16[16]) -> bf16[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %w = bf16[16]{0} parameter(1)
  %both = ((f32[8]{0}, f32[8]{0}), bf16[4,8]{1,0}) fusion(%x), kind=kInput, calls=%other, metadata={op_name="jit(step)/bn/reduce"}
  %conv.1 = (bf16[4,8]{1,0}, u8[0]{0}) custom-call(%both#1, %w), custom_call_target="__cudnn$convForward"
  ROOT %last = bf16[4,8]{1,0} fusion(%conv.1#0, %both#0), kind=kLoop, calls=%fused
}
"""  # noqa: E501


def test_bytes_of_a_gpus_program():
    found = {one.name: one for one in script("gpu_program").operations(HLO)}
    told = {name: (one.kind, one.read, one.written) for name, one in found.items()}
    assert told == {
        "both": ("fusion kInput", 128, 32 + 32 + 64),
        "conv.1": ("custom-call __cudnn$convForward", 64 + 32, 64),
        "last": ("fusion kLoop", 64 + 64, 64),
    }
    assert found["both"].source == "jit(step)/bn/reduce"


def test_tpu_networks_are_compared_with_their_plain_form(tables):
    def row(form, amount):
        step = {
            "bytes": amount,
            "traffic": 2 * amount,
            "flops": 5,
            "seconds": 1,
            "memory": {"temporaries": 4 * amount},
            "collectives": {"all-reduce": {"count": 1}},
        }
        both = {"train": step} if form == "plain" else {"train": step, "evaluate": step}
        return {"name": "a", "form": form, "on": "v5e:2x2", "images": 8, "activation_bytes": 2**20,
                **both}  # fmt: skip

    text = tables.tables_tpu.tpu_networks({"rows": [row("jaxcnn", 3e9), row("plain", 4e9)]})
    assert "bfloat16 of 1 networks" in text
    assert text.splitlines()[-1] == "| `a` | v5e:2x2 | 0.75 | 0.75 | 0.75 | 1.00 |"


def test_plain_batch_norm_is_the_same_function():
    """The form that `tpu_networks.py --plain` compiles, against the network as it is."""
    plain_linen = script("plain_linen")
    model = jaxcnn.create_model("resnet20_cifar", blocks=(1, 1), width=4, stem=(4,))
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)

    def gradient(variables):
        def loss(params):
            given = variables | {"params": params}
            logits, state = model.apply(given, images, train=True, mutable=["batch_stats"])
            return jnp.square(logits).mean(), state

        return jax.grad(loss, has_aux=True)(variables["params"])

    ours = jax.jit(gradient)(variables)
    with plain_linen.plain_batch_norm():
        traced = jax.jit(lambda variables: gradient(variables)).trace(variables)
        plain = traced.lower().compile()(variables)
    assert "normalize_tangent" not in str(traced.jaxpr)
    chex.assert_trees_all_close(ours, plain, rtol=1e-2, atol=1e-4)


def test_commands_of_a_gpu_lease_are_valid():
    """Every run of `gpu_lease.py` has a recipe and fields that exist."""
    gpu_lease = script("gpu_lease")
    given = {"out": Path("o"), "cifar": Path("c"), "photos": Path("p"), "torch_python": "python"}
    args = argparse.Namespace(smoke=False, **given)
    commands = [c for part in gpu_lease.SECONDS for _, c in gpu_lease.commands(part, args)]
    assert len(commands) == len(gpu_lease.RECIPES) + 4
    for command in commands:
        if "train" in command:
            name, *rest = command[command.index("train") + 1 :]
            read_config(name, [change for change in rest if not change.startswith("--")])
    assert set(gpu_lease.NEVER_COMPILED) <= set(script("against_torch").BATCHES)


def test_small_photos_and_studies(tables):
    """Means over the seeds' last errors; a study's section says how it was made."""
    rows = [{"recipe": "scratch", "commit": "abc", "errors": [[50.0, 30.0], [50.0, 20.0]]}]
    assert "| scratch | abc | 25.00 | 30.00, 20.00 |" in tables.tables_studies.small_photos(
        {"rows": rows}
    )
    row = {"run": "one", "seeds": 3, "steps": 3000, "train_error": 1.0, "test_error": 2.0}
    study = {
        "command": "jaxcnn ablate s", "minutes": 90.0, "machine": MACHINE, "title": "T",
        "source": "A paper", "rows": [row | {"test_error_std": 0.5}],
    }  # fmt: skip
    text = tables.tables_studies.sections({"rows": {"s": study}})
    assert "`jaxcnn ablate s`: 3,000 steps, 3 seeds" in text and "90 minutes on A processor" in text
    assert "| one | 2.00 ± 0.50 | 1.00 |" in text and "_static/studies/s.png" in text
    assert "| `s` | 3 | 1.5 | 2026-01-02 |" in tables.tables_studies.cifar_studies(
        {"rows": {"s": study}}
    )
    assert tables.tables_studies.sections(None) == "Not measured yet."
