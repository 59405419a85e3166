"""CenterNet MNV2 with balance-oriented focal loss and step decay.

Table 6 of "Balance-Oriented Focal Loss".
"""

from iou_balanced import balance

from ..common.class_balance import centernet_bofl as _bofl
from .centernet_MNV2_140e_step import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/centernet_MNV2_140e_step_bofl"
