import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
    """Programs run once here, so that most of their time would be that of XLA's optimizations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
