import logging

import pytest

from iou_balanced.engine import main

from .colors import ORDER, OTHER, args_for, coco_set
from .yaml_photos import photos, yaml_config  # noqa: F401  (fixtures)


@pytest.fixture(scope="session", autouse=True)
def _digits(datasets_root):
    """All tests of the engine train on the digits."""


@pytest.fixture(scope="module")
def colors_run(tmp_path_factory):
    """(folder, overrides) of a training whose test set has another order of the classes."""
    folder = tmp_path_factory.mktemp("run")
    data = [*coco_set(folder, ORDER, "train"), *coco_set(folder, OTHER, "test")]
    out = folder / "out"
    main(args_for(*data, f"train.output_dir={out}"))
    return out, data


@pytest.fixture
def log(caplog):
    """The messages of the package from here on."""
    caplog.set_level(logging.INFO, logger="iou_balanced")
    return lambda: "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith("iou_balanced")
    )
