"""Losses outside of Detectron2's event storage, where nobody logs: as within one."""

import pytest
import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes
from detectron2.utils import events
from detectron2.utils.events import EventStorage

from iou_balanced import balance
from iou_balanced.modeling.loss_state import event_storage

from .centernet.test_centernet import small_centernet
from .detector_mixin import build, make_input, small_retinanet
from .foveabox.foveabox_models import small_foveabox
from .rcnn import box_heads, test_rpn
from .ssd.ssd_models import small_ssd
from .test_fcos import small_fcos


@pytest.mark.parametrize("on_main", [False, True])
def test_the_current_storage(monkeypatch, on_main):
    """With Detectron2's main branch, which has a function for it, and with v0.6."""
    if on_main:
        has = lambda: bool(events._CURRENT_STORAGE_STACK)  # noqa: E731
        monkeypatch.setattr(events, "has_event_storage", has, raising=False)
    else:
        monkeypatch.delattr(events, "has_event_storage", raising=False)
    assert event_storage() is None
    with EventStorage() as storage:
        assert event_storage() is storage
    assert event_storage() is None


@pytest.mark.parametrize(
    "config", [small_retinanet, small_fcos, small_foveabox, small_ssd, small_centernet]
)
def test_dense_detectors(config):
    batch = [make_input(), make_input()]
    if config is small_ssd:
        batch = [make_input(size=(96, 96))]
    losses = []
    for storage in (EventStorage(), None):
        model = build(balance(config()))
        if storage is None:
            losses.append(model(batch))
        else:
            with storage:
                losses.append(model(batch))
            assert any("num_" in name for name in storage.latest())
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        assert torch.equal(losses[1][name], value) and value > 0


@pytest.mark.parametrize("proposals", ["none", "some"])
def test_the_box_head(proposals):
    kwargs = box_heads.balanced_losses(weight="auto")
    if proposals == "none":
        predictions, proposals = (torch.randn(0, box_heads.K + 1), torch.randn(0, 4)), []
        expected = box_heads.make_layers(layers=FastRCNNOutputLayers).losses(predictions, [])
    else:
        predictions, proposals = box_heads.random_batch(agnostic=False)
        with EventStorage() as storage:
            layers = box_heads.make_layers(**box_heads.balanced_losses(weight="auto"))
            expected = layers.losses(predictions, proposals)
        assert "w_loc" in storage.latest()
    losses = box_heads.make_layers(**kwargs).losses(predictions, proposals)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
        assert (value == 0) == (proposals == [])


def test_the_rpn():
    logits, deltas, labels, anchors, gt_boxes = test_rpn.make_batch(test_rpn.LABELS)
    batch = ([Boxes(anchors)], [logits], list(labels), [deltas], list(gt_boxes))
    losses = test_rpn.make_rpn(**test_rpn.balanced_losses()).losses(*batch)
    with EventStorage() as storage:
        expected = test_rpn.make_rpn(**test_rpn.balanced_losses()).losses(*batch)
    assert {"rpn/num_pos_anchors", "rpn/w_loc"} <= set(storage.latest())
    for name, value in expected.items():
        assert torch.equal(losses[name], value) and value > 0
