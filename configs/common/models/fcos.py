"""FCOS with its published losses, on Detectron2's ResNet-50 with FPN (P6 and P7 from P5).

Detectron2's FCOS has the improvements of arXiv 2006.09214: center sampling, GIoU loss, regression
targets in strides, centerness beside the boxes, and a score that is the root of the product.
"""

from detectron2 import model_zoo

import iou_balanced

model = model_zoo.get_config("common/models/fcos.py").model
# Focal loss with alpha 0.25 and gamma 2, and GIoU loss.
iou_balanced.balance(model, eta=None, lam=None)
model.backbone.bottom_up.freeze_at = 2
