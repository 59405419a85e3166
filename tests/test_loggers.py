"""No test's messages depend on which trainings ran before it in the same process."""

import logging

import pytest
from detectron2.utils.logger import setup_logger


@pytest.fixture(scope="module")
def trained_before(tmp_path_factory):
    """Leaves the loggers as a training does: of their own handlers, not propagating."""
    for name in ("iou_balanced", "detectron2", "fvcore"):
        setup_logger(str(tmp_path_factory.mktemp("run")), name=name)


@pytest.mark.parametrize("trains_itself", [False, True, False])
def test_messages_are_captured(trained_before, caplog, tmp_path, trains_itself):
    for name in ("iou_balanced", "detectron2", "fvcore"):
        assert not logging.getLogger(name).handlers
    caplog.set_level(logging.INFO, logger="iou_balanced")
    if trains_itself:
        setup_logger(str(tmp_path), name="iou_balanced")
    logging.getLogger("iou_balanced.engine").info("heard")
    assert [record.message for record in caplog.records] == ["heard"]
