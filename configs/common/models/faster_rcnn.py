"""Faster R-CNN with the paper's baseline losses, on Detectron2's ResNet-50 with FPN."""

from detectron2 import model_zoo

import iou_balanced

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    del model.roi_heads[_key]
# The authors' baseline has smooth L1 in both stages, with these beta; stock has 0, which is L1.
model.proposal_generator.smooth_l1_beta = 1 / 9
iou_balanced.balance(model, eta=None, lam=None, beta=1.0)
model.backbone.bottom_up.freeze_at = 2
