"""Denormal numbers, with which a CPU computes many times slower."""

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["flushed_denormals"]


@contextlib.contextmanager
def flushed_denormals(device: str) -> Iterator[None]:
    """In the block a CPU takes float32 below 1.2e-38 for 0, as GPUs do in much of their work.

    Pretrained models have such numbers in channels that died, and so have gradients of scores that
    are near 0. It holds for this thread, and for those that are started in the block. Where the
    processor cannot, and for another device, nothing changes.

    Args:
        device: of the model.
    """
    if torch.device(device).type != "cpu" or are_flushed() or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def are_flushed() -> bool:
    """Whether this thread does so now."""
    return (torch.tensor(2e-38) * 0.25).item() == 0
