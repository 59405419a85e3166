"""One thread, so that small tensors are quick and numbers repeat, and one seed for each test."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
