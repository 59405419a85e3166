"""RetinaNet with the paper's baseline losses, on Detectron2's ResNet-50 with FPN."""

from detectron2 import model_zoo

import iou_balanced

model = model_zoo.get_config("common/models/retinanet.py").model
# Focal loss, and smooth L1 with the paper's beta (0.11) for both of its rows; stock has 0.
iou_balanced.balance(model, eta=None, lam=None, beta=0.11)
model.backbone.bottom_up.freeze_at = 2
