"""FCOS R50 with balance-oriented focal loss: Table 9 of "Balance-Oriented Focal Loss"."""

from iou_balanced import balance

from ..common.class_balance import fcos_bofl as _bofl
from .fcos_R_50_FPN_1x import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/fcos_R_50_FPN_1x_bofl"
