"""One thread, so that small tensors are quick and numbers repeat, and one seed for each test."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory):
    """A folder for built-in data sets, so that the digits are made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("datasets")
        patch.setenv("DETECTRON2_DATASETS", str(root))
        yield root
