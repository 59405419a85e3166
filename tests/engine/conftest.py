import pytest


@pytest.fixture(scope="session", autouse=True)
def datasets_root(tmp_path_factory):
    """The digits are made once for all tests of the engine, in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("datasets")
        patch.setenv("DETECTRON2_DATASETS", str(root))
        yield root
