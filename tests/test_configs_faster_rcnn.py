"""The settings of Faster R-CNN in Tables 1 and 7 (arXiv 1908.05641), in the configs for them."""

import pytest
from detectron2.config import instantiate

from iou_balanced.modeling import BalancedFastRCNNOutputLayers, BalancedGeneralizedRCNN
from iou_balanced.reproduction import papers

from .test_configs import load

# File: depth, scale, class-agnostic boxes. eta and lam are those of the records.
FILES = {
    "R_50_FPN_1x": (50, (800, 1333), False),
    "R_101_FPN_1x": (101, (800, 1333), False),
    "R_50_FPN_1x_600": (50, (600, 1000), True),
    "R_50_FPN_1x_600_iou_balanced_cls": (50, (600, 1000), True),
    "R_50_FPN_1x_600_iou_balanced_loc": (50, (600, 1000), True),
    "R_50_FPN_1x_600_iou_balanced": (50, (600, 1000), True),
}
LOSSES = {row.config: row.losses for row in papers()["iou"].rows}


@pytest.mark.parametrize("name", FILES)
def test_the_papers_settings(name):
    depth, scale, agnostic = FILES[name]
    losses = LOSSES[f"COCO/faster_rcnn_{name}"]
    eta, lam = losses["cls_loss"].get("eta"), losses["box_loss"].get("lam")
    cfg = load(f"COCO/faster_rcnn_{name}.py")
    model = cfg.model
    assert model._target_ is BalancedGeneralizedRCNN
    bottom_up = model.backbone.bottom_up
    assert (bottom_up.stages.depth, bottom_up.freeze_at) == (depth, 2)
    assert cfg.train.init_checkpoint == f"detectron2://ImageNetPretrained/MSRA/R-{depth}.pkl"
    assert not [key for key in model.roi_heads if key.startswith("mask")]

    rpn = instantiate(model.proposal_generator)  # plain, with the authors' beta
    assert (rpn.box_reg_loss_type, rpn.smooth_l1_beta) == ("smooth_l1", pytest.approx(1 / 9))
    assert not hasattr(rpn, "box_loss")
    layers = instantiate(model.roi_heads.box_predictor)
    assert isinstance(layers, BalancedFastRCNNOutputLayers)
    assert layers.bbox_pred.out_features == (4 if agnostic else 320)
    cls_loss, box_loss = layers.cls_loss, layers.box_loss
    assert (cls_loss.reduction, getattr(cls_loss, "eta", None)) == ("sum", eta)
    assert (box_loss.beta, getattr(box_loss, "lam", None)) == (1.0, lam)
    assert getattr(box_loss, "w_loc", None) == (2.4 if lam else None)
    assert not getattr(box_loss, "normalize", False)  # Eq. 6, not Eq. 7

    for split in ("train", "test"):
        resize = instantiate(cfg.dataloader[split].mapper.augmentations[0])
        assert (resize.short_edge_length, resize.max_size) == ((scale[0], scale[0]), scale[1])
    assert cfg.datasets == {"train": "coco_2017_train", "test": "coco_2017_val"}
    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 16
    optimizer = cfg.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.02, 0.9, 1e-4)
    assert cfg.train.max_iter == 12 * 7330
