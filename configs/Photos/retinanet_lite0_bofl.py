"""RetinaNet on EfficientNet-Lite0 with balance-oriented focal loss."""

from iou_balanced import balance

from ..common.class_balance import fcos_bofl as _bofl
from .retinanet_lite0 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/photos/retinanet_lite0_bofl"
