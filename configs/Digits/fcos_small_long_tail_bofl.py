"""Small FCOS on the long-tailed digits with balance-oriented focal loss."""

from iou_balanced import balance

from ..common.class_balance import fcos_bofl as _bofl
from .fcos_small_long_tail import dataloader, datasets, lr_multiplier, model, optimizer, train

# The paper's FCOS: an epoch of its 12 is a twelfth of the training here.
balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/digits/fcos_small_long_tail_bofl"
