"""One thread, so that small tensors are quick and numbers repeat; for each test one seed, and
loggers as they are before any training."""

import copy
import gc
import logging
from pathlib import Path

import pytest
import torch
from detectron2.utils.logger import setup_logger

from iou_balanced.engine import config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

torch.set_num_threads(1)


# What is quick and basic comes first, so that a mistake there is said before the trainings start.
ORDER = ("losses", "properties", "formats", "geometry", "analysis", "data", "modeling", "backbones")
ORDER += ("evaluation", "reproduction", "test_", "engine", "inference")
# With --dist loadfile a file's tests go to one process, but each of these to any.
ALONE = ("test_learning",)
LAST = ("test_coco_end_to_end", "test_learning", "test_install")


def pytest_collection_finish():
    """What is imported by now stays: a collection need not look at its million objects."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    def rank(item):
        path = item.path.relative_to(Path(__file__).parent)
        late = LAST.index(path.stem) + 1 if path.stem in LAST else 0
        return late, next(i for i, name in enumerate(ORDER) if path.parts[0].startswith(name))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if Path(file).stem in ALONE else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


class _AlwaysHeard(logging.Logger):
    """A logger whose records reach caplog also after `setup_logger` took it off its parent."""

    propagate = property(lambda self: True, lambda self, value: None)


LOGGERS = [logging.getLogger(name) for name in ("detectron2", "fvcore", "iou_balanced")]
for logger in LOGGERS:
    logger.__class__ = _AlwaysHeard


@pytest.fixture(autouse=True)
def fresh_loggers():
    """A training's handlers and levels end with its test, or with its module's fixture."""
    _reset_loggers()
    yield
    _reset_loggers()


def _reset_loggers():
    setup_logger.cache_clear()  # or the next training's logger would get no handler
    for logger in LOGGERS:
        logger.setLevel(logging.NOTSET)
        logger.handlers.clear()


@pytest.fixture(scope="session", autouse=True)
def published_configs_are_read_once():
    """A published config takes a quarter of a second to read, and tests ask for it 1,000 times."""
    real, kept = config._read, {}

    def read(file):
        path = Path(file).resolve()
        if CONFIGS not in path.parents or not path.is_file():
            return real(file)
        if path not in kept:
            kept[path] = real(file)
        return copy.deepcopy(kept[path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_read", read)
        yield


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory):
    """A folder for built-in data sets, so that the digits are made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("datasets")
        patch.setenv("DETECTRON2_DATASETS", str(root))
        yield root
