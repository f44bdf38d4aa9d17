"""The command line: its manners, `list` and `summary`."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcnn
from jaxcnn._files import local_path
from jaxcnn.analysis import facts, networks
from jaxcnn.cli import completion, main
from jaxcnn.cli.main import _parse
from jaxcnn.cli.train import default_workdir
from jaxcnn.models import registry
from jaxcnn.training.config import default_config

ROOT = Path(__file__).parents[1]


def run(capsys, *argv):
    code = main(argv)
    out, err = capsys.readouterr()
    assert code == 0 and err == ""
    return out


def error(capsys, *argv):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jaxcnn: error: ") and err.count("\n") == 1
    return err


def test_help_of_every_command_gives_an_example_and_needs_no_jax():
    script = (
        "import sys; from jaxcnn.cli.main import make_parser; parser = make_parser()\n"
        "actions = [a for a in parser._actions if a.choices and hasattr(a.choices, 'items')]\n"
        "for name, command in actions[0].choices.items():\n"
        "    text = command.format_help()\n"
        "    assert f'example: jaxcnn {name}' in ' '.join(text.split()), text\n"
        "assert parser.format_help()\n"
        "heavy = {'jax', 'flax', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(len(actions[0].choices))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2


def test_a_mistake_is_one_line_and_debug_shows_where(capsys, monkeypatch):
    def shows_where(*argv):
        assert main(argv) == 2
        err = capsys.readouterr().err
        return "Traceback" in err and err.splitlines()[-1].startswith("jaxcnn: error: unknown mod")

    assert "did you mean 'lenet5'" in error(capsys, "summary", "lenet6")
    assert shows_where("--debug", "summary", "lenet6")
    assert shows_where("summary", "lenet6", "--debug")
    monkeypatch.setenv("JAXCNN_DEBUG", "1")
    assert shows_where("summary", "lenet6")


def test_missing_file_names_the_file(capsys, monkeypatch):
    from jaxcnn.cli import summary

    monkeypatch.setattr(summary, "run", lambda args: Path("/nowhere/weights.npz").read_bytes())
    assert "/nowhere/weights.npz: No such file" in error(capsys, "summary", "vgg16")


def test_a_closed_pipe_is_no_mistake():
    command = f"{sys.executable} -m jaxcnn.cli list | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.stdout.startswith("id") and done.stderr == "" and done.returncode == 0


def test_usage_errors_exit_with_2(capsys):
    for argv in (
        ["lst"],
        ["list", "--sort", "age"],
        ["list", "a", "b"],
        ["list", "--json", "--markdown"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["serve", "lenet5.digits", "--host", ""], "--host"),  # it would listen on every address
        (["history", "--csv", ""], "--csv"),
        (["report", "a", ""], "RUN"),
        (["train", "lenet_digits", "--workdir", ""], "--workdir"),
    ],
)
def test_an_empty_argument_is_named(capsys, monkeypatch, tmp_path, argv, name):
    monkeypatch.chdir(tmp_path)
    assert error(capsys, *argv).startswith(f"jaxcnn: error: {name} is empty")
    assert not any(tmp_path.iterdir())


def test_version_help_and_a_mistyped_command(capsys):
    for argv, text in ((["--version"], f"jaxcnn {jaxcnn.__version__}\n"), ([], "usage: jaxcnn")):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert not stop.value.code
        assert capsys.readouterr().out.startswith(text)
    with pytest.raises(SystemExit):
        main(["evalute", "x"])
    assert "unknown command 'evalute'; did you mean 'evaluate'" in capsys.readouterr().err


def test_lists_and_reports_need_no_jax(tmp_path):
    write_run(tmp_path / "a", "resnet20_cifar", 0.1)
    script = (
        "import sys\nfrom jaxcnn.cli import main\n"
        "from importlib.util import find_spec\n"
        "pages = ['report a --html p.html'] if find_spec('plotly') else []\n"
        "for argv in ('list', 'ablate', 'train', 'history', 'compare', 'report a', *pages):\n"
        "    assert main(argv.split()) == 0\n"
        "heavy = {'jax', 'flax', 'orbax', 'optax', 'tensorboardX'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet20_cifar" in done.stdout


def write_run(folder, model, error):
    """A finished run as `report` reads it."""
    folder.mkdir()
    config = default_config()
    config.model.name = model
    manifest = {"config": json.loads(config.to_json()), "jaxcnn": "0", "total_steps": 2}
    (folder / "config.json").write_text(json.dumps(manifest))
    row = {"kind": "eval", "step": 2, "epoch": 1.0, "loss": 1.0, "top1_error": error}
    row |= {"train_loss": 1.0, "train_top1_error": error}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_the_stored_facts_are_the_networks_own():
    assert facts.names() == registry.list_models() and facts.aliases() == registry.list_aliases()
    for name in facts.names():
        own = dataclasses.asdict(registry.model_info(name))
        assert dataclasses.asdict(facts.facts(name)) == own, (
            "out of date: run python -m jaxcnn.analysis.facts"
        )


def test_a_recipe_is_trained_by_name_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "lenet_digits:smoke", "--resume", "train.devices=1"]) == 0
    assert (tmp_path / "runs" / "lenet_digits_smoke" / "best").is_dir()
    capsys.readouterr()
    assert main(["train"]) == 0
    out = capsys.readouterr().out
    assert "cifar_resnet\n    Residual networks on CIFAR-10, the recipe of He et al. 2016" in out
    assert "8.75 (20)" in out and "ensembles/senet" in out


def test_list_shows_every_network_once(capsys):
    lines = run(capsys, "list").splitlines()
    names = [line.split()[0] for line in lines[2:-2]]
    assert names == registry.list_models()
    assert lines[-1].startswith(f"{len(names)} networks")


def test_list_filters_by_id_alias_and_family(capsys):
    def ids(*argv):
        return [info["name"] for info in json.loads(run(capsys, "list", "--json", *argv))]

    assert ids("vgg16") == ids("vgg_d") == ["vgg_d"]
    assert set(ids("lenet5*")) == {"lenet5_modern", "lenet5_1998"}
    assert set(ids("--family", "zfnet")) == {"zfnet_384", "zfnet_512"}
    assert set(ids("vgg_d*", "--family", "vgg")) == {"vgg_d", "vgg_d_bn"}
    assert "no network matches 'vgg17'; did you mean" in error(capsys, "list", "vgg17")
    assert "in family 'lenet'" in error(capsys, "list", "vgg16", "--family", "lenet")
    assert "did you mean 'vgg'" in error(capsys, "list", "--family", "vggs")
    assert "it must be one of lenet, alexnet" in error(capsys, "list", "--family", "transformer")


@pytest.mark.parametrize("sort, field", networks._SORT_FIELDS.items())
def test_list_sorts_with_the_unknown_last(capsys, sort, field):
    infos = json.loads(run(capsys, "list", "--json", "--sort", sort))
    assert len(infos) == len(registry.list_models())
    groups = [infos]
    if field.endswith("error"):  # errors of different data are not compared
        names = list(dict.fromkeys(info["dataset"] for info in infos))
        assert names == ["imagenet", "cifar10", "mnist"]
        groups = [[info for info in infos if info["dataset"] == name] for name in names]
        assert [info for group in groups for info in group] == infos
    for group in groups:
        values = [info[field] for info in group]
        known = [value for value in values if value is not None]
        assert known == sorted(known)
        assert values[len(known) :] == [None] * (len(values) - len(known))


def test_list_gives_the_published_figures(capsys):
    row = next(line for line in run(capsys, "list").splitlines() if line.startswith("vgg_d "))
    assert row.split() == (
        ["vgg_d", "vgg16", "imagenet", "2014", "138,357,544", "15,470,264,320", "25.6", "8.1"]
    )


def test_summary_command(capsys):
    assert "60,856" in run(capsys, "summary", "lenet5", "--num-classes", "0")
    data = json.loads(run(capsys, "summary", "vgg16", "--json", "--num-classes", "10"))
    assert data["totals"]["params"] == 138_357_544 - 990 * 4097
    assert "| fc8 | dense | 1000 |" in run(capsys, "summary", "vgg16", "--markdown")
    assert "28x28x6" in run(capsys, "summary", "lenet5", "--image-size", "28")
    assert "needs at least 28x28" in error(capsys, "summary", "lenet5", "--image-size", "20")


def test_the_page_of_networks_lists_every_network(capsys):
    text = (ROOT / "docs" / "networks.md").read_text("utf-8")
    assert networks.update_page(text) == text, (
        "out of date: run python -m jaxcnn.analysis.networks docs/networks.md"
    )
    assert run(capsys, "list", "--markdown").strip() in text


def test_updating_a_page_leaves_the_rest_alone():
    before, after = "# title\n\n<!-- networks -->", "<!-- /networks -->\n\nend\n"
    text = networks.update_page(f"{before}old{after}")
    assert text.startswith(f"{before}\n| id |") and text.endswith(f"|\n{after}")
    assert networks.update_page(text) == text
    with pytest.raises(ValueError, match="once each"):
        networks.update_page(after + before)


def test_home_is_expanded_and_some_urls_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_run(tmp_path / "a", "resnet20_cifar", 0.1)
    assert "resnet20_cifar" in run(capsys, "report", "~/a", "--out=~/r.png")
    assert (tmp_path / "r.png").is_file()
    arguments = ["train", "lenet_digits:smoke", "train.devices=1"]
    for bad, text in (
        ("--workdir=ftp://host/run", "is not a valid path; a path is local or begins with one of"),
        ("data.source=folder:ftp://host/photos", "is not a valid path; a path is local or begins"),
    ):
        assert main([*arguments, f"--workdir={tmp_path}/w", bad]) == 2
        err = capsys.readouterr().err
        assert text in err and err.count("\n") == 1
    with pytest.raises(ValueError, match="is a URL"):
        local_path("hf://datasets/x")
    assert local_path("~/x") == tmp_path / "x" and local_path("a:b/c") == Path("a:b/c")


def test_differences_of_unlike_runs_stand_on_their_side(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", "resnet20_cifar", 0.1)
    write_run(tmp_path / "b", "resnet56_cifar", 0.2)
    path = tmp_path / "b" / "config.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["train"] |= {"batch_size": 7, "seed": 9, "bn_sync": "local" * 20}
    manifest["config"]["data"] |= {"source": "folder:" + "x" * 50}
    path.write_text(json.dumps(manifest))
    lines = run(capsys, "report", "a", "b").splitlines()
    assert any(line.split() == ["field", "a", "b"] for line in lines)
    assert any(line.split() == ["train.seed", "0", "9"] for line in lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train a b=1 --resume c=2 --workdir w d=3", {"config": "a", "overrides": "b=1 c=2 d=3"}),
        ("train --workdir w a b=1", {"config": "a", "overrides": "b=1"}),
        ("train --workdir w", {"config": None, "overrides": ""}),
        ("ablate --budget 2 s b=1 --full c=2", {"study": "s", "overrides": "b=1 c=2"}),
        ("show-data --out x.png a b=1", {"config": "a", "overrides": "b=1"}),
        ("show-data a --out x.png b=1", {"config": "a", "overrides": "b=1"}),
        ("evaluate --batch-size 2 a --json x b", {"what": "a b"}),
        ("report a --out x b c", {"runs": "a b c"}),
        ("prepare --side 3 a --quality 5 b", {"source": "a", "out": "b"}),
        ("predict a --top 1 -", {"what": "a", "images": "-"}),
        ("list --data x a", None),
        ("train a --bogus b=1", None),
        ("export a b c", None),
    ],
)
def test_arguments_may_stand_before_and_after_options(line, expected):
    if expected is None:
        with pytest.raises(SystemExit):
            _parse(line.split())
        return
    args = _parse(line.split())
    for name, value in expected.items():
        found = getattr(args, name)
        assert (" ".join(found) if isinstance(found, list) else found) == value


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("", {"train", "summary", "completion", "--version"}),
        ("sum", {"summary"}),
        ("--debug sum", {"summary"}),
        ("summary vgg16_", {"vgg16_bn"}),
        ("bench lenet5 --batch-size 8 resnet20_c", {"resnet20_cifar"}),
        ("bench --inf", {"--infer"}),
        ("list --sort ma", {"macs"}),
        ("list --sort = ma", {"macs"}),
        ("list --family vgg --so", {"--sort"}),
        ("train cifar_w", {"cifar_wrn"}),
        ("train cifar_wrn train.length_e", {"train.length_epochs=", "train.length_examples="}),
        ("train --workdir runs/x cifar_w", {"cifar_wrn"}),
        ("ablate residual", {"residual_vs_plain"}),
        ("completion f", {"fish"}),
        ("predict cat.j", set()),
        ("train --workdir ru", set()),
        ("predict --", {"--top"}),
        ("completion bash --", {"--debug"}),
        ("nothing x", set()),
    ],
)
def test_completion_of_a_line(line, some):
    found = completion.complete(line.split(" "))
    assert some <= set(found) and bool(found) == bool(some)
    assert all(one.startswith(line.split(" ")[-1]) for one in found)
    assert not {"--model", "--weights", "--words"} & set(found), "these are not in the help"


_TYPED = {
    "bash": "COMP_WORDS=(jaxcnn summary vgg16_); COMP_CWORD=2; _jaxcnn; echo ${COMPREPLY[@]}",
    "zsh": "words=(jaxcnn summary vgg16_); CURRENT=3; _jaxcnn",
    "fish": "complete -C 'jaxcnn summary vgg16_'",
}


@pytest.mark.parametrize("shell", _TYPED)
def test_completion_in_the_shell(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "jaxcnn"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jaxcnn.cli "$@"\n')
    program.chmod(0o755)
    stubs = "compdef() { }; compadd() { print -rl -- ${@[${@[(i)--]} + 1,-1]} }; "
    stubs = stubs if shell == "zsh" else ""
    source = "jaxcnn completion fish | source" if shell == "fish" else f'eval "$({program} {{}})"'
    script = f"{stubs}{source.format(f'completion {shell}')}; {_TYPED[shell]}"
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split() == ["vgg16_bn"] and not done.stderr, done.stderr


def test_a_missing_name_is_a_mistake_unless_nothing_else_is_given(capsys):
    assert main(["train", "--workdir", "runs/a"]) == 2
    assert "CONFIG is missing" in capsys.readouterr().err
    assert main(["ablate", "--full"]) == 2
    assert "STUDY is missing" in capsys.readouterr().err
    assert main(["ablate", "kernels", "--full", "--budget", "3"]) == 2
    assert "--budget is 3; --full is not scaled" in capsys.readouterr().err


def test_an_unknown_option_suggests_one_of_the_command(capsys):
    with pytest.raises(SystemExit):
        main(["train", "lenet_digits", "--workdri", "x"])
    said = capsys.readouterr().err
    assert "usage: jaxcnn train" in said and "did you mean '--workdir'" in said


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ("cifar_resnet:56,split", "cifar_resnet_56_split"),
        ("my/my.python.py:a", "my.python_a"),
        ("ensembles/senet", "ensembles_senet"),
        ("configs/ensembles/senet.py:smoke", "ensembles_senet_smoke"),
    ],
)
def test_the_default_directory_has_the_name_of_the_recipe(config, folder):
    assert default_workdir(config) == Path("runs") / folder
