"""Configs that several tests look at and none changes."""

import functools

from ..test_configs import load


@functools.cache
def load_once(config: str, overrides: tuple[str, ...] = ()):
    """The config "COCO/ssd300" with overrides."""
    return load(f"{config}.py", *overrides)
