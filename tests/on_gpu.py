"""A training step on a GPU beside the same one on the CPU."""

import contextlib

import pytest
import torch

from iou_balanced.losses import ClassBalance

from .modeling.detector_mixin import build, gradients, training_step

DEVICE = "cuda"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@contextlib.contextmanager
def without_tf32():
    """Else a GPU's float32 convolutions and products have a mantissa of 10 bits."""
    settings = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [x.allow_tf32 for x in settings]
    try:
        for x in settings:
            x.allow_tf32 = False
        yield
    finally:
        for x, value in zip(settings, before, strict=True):
            x.allow_tf32 = value


def build_on(config, device):
    """The model with the same weights on every device, in the middle of its training."""
    model = build(config).to(device)
    for module in model.modules():
        if isinstance(module, ClassBalance):
            module.set_iteration(50, 100)
    return model


def step(config, batch, device):
    """Losses by name and gradients by parameter, on the CPU."""
    model = build_on(config, device)
    losses = training_step(model, batch)
    assert all(loss.device.type == device for loss in losses.values())
    return (
        {name: loss.item() for name, loss in losses.items()},
        {name: grad.cpu() for name, grad in gradients(model).items()},
    )


def assert_same_step(config, batch):
    """Losses and gradients; `config` makes the LazyConfig.

    With another algorithm for its convolutions, a CPU's differ from its own by 3e-4 at the most.
    """
    with without_tf32():
        losses, grads = step(config(), batch, DEVICE)
        expected_losses, expected_grads = step(config(), batch, "cpu")
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    largest = max(grad.norm() for grad in expected_grads.values())
    for name, expected in expected_grads.items():
        difference = (grads[name] - expected).norm()
        # That of a bias before a BatchNorm is nothing but rounding errors.
        assert difference <= 1e-2 * expected.norm() + 1e-6 * largest, name
