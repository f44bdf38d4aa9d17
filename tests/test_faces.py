"""The public interface of each package: what `__all__` names is there, and is documented."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

PACKAGES = (
    *("jaxcnn", "jaxcnn.ops", "jaxcnn.layers", "jaxcnn.models", "jaxcnn.data"),
    *("jaxcnn.metrics", "jaxcnn.weights", "jaxcnn.training", "jaxcnn.evaluation"),
    *( "jaxcnn.analysis", "jaxcnn.studies", "jaxcnn.reporting"),
)
WITHOUT_JAX = ("jaxcnn.analysis", "jaxcnn.evaluation", "jaxcnn.reporting", "jaxcnn.studies")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_is_there_and_documented(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        home = getattr(value, "__module__", "")
        if not home.startswith("jaxcnn.") or home.startswith("jaxcnn.ops"):
            continue  # a module, a constant, or an operation, whose docstrings are apart
        doc = inspect.getdoc(value) or ""
        assert doc.partition("\n")[0].endswith("."), f"{package}.{name}"
        if inspect.isfunction(value) and len(inspect.signature(value).parameters) > 1:
            documented = set(re.findall(r"^  \**(\w+): ", doc.partition("Args:\n")[2], re.M))
            missing = set(inspect.signature(value).parameters) - documented
            assert not missing, f"{package}.{name}: {missing}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="'nothing'"):
        importlib.import_module(package).nothing  # noqa: B018


def test_lazy_packages_do_not_import_jax():
    code = f"import sys, {', '.join(WITHOUT_JAX)}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
