"""CenterNet R101 with the loss of Table 3 of "Balance-Oriented Focal Loss"."""

from iou_balanced import balance

from ..common.class_balance import centernet_bofl as _bofl
from .centernet_R_101_140e import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/centernet_R_101_140e_bofl"
