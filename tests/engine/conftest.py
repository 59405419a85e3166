import pytest

from .yaml_photos import photos, yaml_config  # noqa: F401  (fixtures)


@pytest.fixture(scope="session", autouse=True)
def _digits(datasets_root):
    """All tests of the engine train on the digits."""
