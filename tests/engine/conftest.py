import pytest


@pytest.fixture(scope="session", autouse=True)
def _digits(datasets_root):
    """All tests of the engine train on the digits."""
