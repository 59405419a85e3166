"""Every detector on a GPU: the losses and gradients of the small models are the CPU's."""

from pathlib import Path

import pytest
import torch

from iou_balanced.engine import load_config

from .modeling.detector_mixin import make_input, without_boxes
from .on_gpu import assert_same_step, needs_gpu

pytestmark = needs_gpu

FILES = sorted(
    path
    for path in (Path(__file__).resolve().parents[1] / "configs/Digits").glob("*.py")
    if not path.stem.endswith("_long_tail")  # the model is the baseline's
)
COUNTS = list(range(100, 0, -10))


def without_samples(model):
    """Of an R-CNN: a GPU draws other random numbers, and so all anchors and proposals count.

    Every box that the RPN makes is a proposal, so that no rounding error decides which are kept.
    """
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.batch_size_per_image = heads.batch_size_per_image = 10**6
    rpn.pre_nms_topk = rpn.post_nms_topk = (10**6, 10**6)
    rpn.nms_thresh = 1.0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_losses_and_gradients_are_the_cpus(file):
    def config():
        model = load_config(str(file), []).model
        if "roi_heads" in model:
            without_samples(model)
        if "class_balance" in model:
            model.class_balance.class_counts = COUNTS
        return model

    torch.manual_seed(0)
    boxes, classes = [[8, 12, 50, 60], [60, 30, 90, 62], [5, 64, 26, 92]], [0, 9, 4]
    batch = [make_input(boxes, classes), make_input(boxes[1:], [3, 3]), without_boxes()]
    assert_same_step(config, batch)
