import pytest
import whole_step


@pytest.fixture
def float64():
    with whole_step.float64():
        yield
