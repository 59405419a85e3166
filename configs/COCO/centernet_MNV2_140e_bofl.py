"""CenterNet MNV2 with balance-oriented focal loss.

Tables 1, 2, 4, 5, 6, 7, 8, 10 and 11 of "Balance-Oriented Focal Loss".
"""

from iou_balanced import balance

from ..common.class_balance import centernet_bofl as _bofl
from .centernet_MNV2_140e import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/centernet_MNV2_140e_bofl"
