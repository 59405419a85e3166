import pytest

from .detectors import small_config
from .exports import exported


@pytest.fixture(scope="session")
def exported_retinanet(tmp_path_factory):
    """(config, weights, what the export says, the file), with a score threshold."""
    cfg = small_config("retinanet_small_iou_balanced")
    cfg.model.test_score_thresh = 0.3
    return cfg, *exported(cfg, tmp_path_factory.mktemp("onnx"))
