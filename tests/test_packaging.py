"""What is published: the version, what the sdist and the wheel hold, and where the project is."""

import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import jaxcnn

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HATCH = PYPROJECT["tool"]["hatch"]
SDIST = set(HATCH["build"]["targets"]["sdist"]["only-include"])


def test_the_version_is_written_once():
    assert "version" not in PYPROJECT["project"]
    source = (ROOT / HATCH["version"]["path"]).read_text("utf-8")
    assert re.findall(r'^__version__ = "(.*)"$', source, re.M) == [jaxcnn.__version__]
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_changelog_has_the_version():
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == "Unreleased"
    assert headings[1] == jaxcnn.__version__


def test_the_extra_tfds_is_installed_by_default():
    project = PYPROJECT["project"]
    assert set(project["optional-dependencies"]["tfds"]) <= set(project["dependencies"])


def test_what_the_sdist_names_exists():
    assert not {name for name in SDIST if not (ROOT / name).exists()}


def test_the_sdist_holds_everything_that_is_tracked():
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode or "pyproject.toml" not in git.stdout.splitlines():
        pytest.skip("not a checkout")
    tracked = {path.partition("/")[0] for path in git.stdout.splitlines()}
    assert tracked - SDIST == {"pyproject.toml"}  # the build backend adds it


def test_the_address_is_the_same_everywhere():
    address = PYPROJECT["project"]["urls"]["Repository"]
    files = [ROOT / name for name in SDIST - {"jaxcnn", "tests"}]
    texts = [
        path.read_text("utf-8")
        for top in files
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.suffix in {".md", ".py", ".ipynb", ".cff", ".yml"}
    ]
    found = {
        match for text in texts for match in re.findall(r"github(?:\.com)?/\w+/jaxcnn\b", text)
    }
    assert {name.split("/", 1)[1] for name in found} == {
        address.removeprefix("https://github.com/")
    }


def test_hooks_and_workflows_check_spelling_with_the_same_version():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    (hook,) = re.findall(r"codespell\n +rev: v(\S+)", hooks)
    assert re.findall(r"codespell@(\S+)", workflow) == [hook]


def test_workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert set(re.findall(r"make ([a-z-]+)", path.read_text("utf-8"))) <= targets, path.name


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel, built without a network."""
    pytest.importorskip("hatchling")
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    folder = str(tmp_path_factory.mktemp("dist"))
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=folder, versions=["standard"])
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=folder, versions=["standard"])
    return Path(sdist), Path(wheel)


def test_the_wheel_holds_recipes_types_and_license(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        lines = wheel.read(path).decode("utf-8").splitlines()
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")}
    assert recipes and {f"jaxcnn/{recipe}" for recipe in recipes} <= names
    assert "jaxcnn/py.typed" in names
    pages = [p for p in (ROOT / "jaxcnn").rglob("page.*") if p.suffix in {".html", ".css", ".js"}]
    assert pages and {path.relative_to(ROOT).as_posix() for path in pages} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not {name.partition("/")[0] for name in names if ".dist-info" not in name} - {"jaxcnn"}
    assert f"Version: {jaxcnn.__version__}" in lines
    assert "License-Expression: Apache-2.0" in lines


def test_the_sdist_holds_tests_docs_and_what_they_read(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    kept = [*(ROOT / "docs").glob("*.*"), *(ROOT / "notebooks").glob("*.*")]
    for top in ("tests", "benchmarks", "configs", "jaxcnn"):
        kept += [p for p in (ROOT / top).rglob("*") if p.suffix in {".py", ".npz", ".json", ".md"}]
    assert not {path.relative_to(ROOT).as_posix() for path in kept} - names
    assert {"LICENSE", "Makefile", "requirements.lock", "train.py", "pyproject.toml"} <= names
