"""Small CenterNet on the long-tailed digits with balance-oriented focal loss."""

from iou_balanced import balance

from ..common.class_balance import centernet_bofl as _bofl
from .centernet_small_long_tail import dataloader, datasets, lr_multiplier, model, optimizer, train

# The paper's: eta 0.8, counted by image, and 5 of 140 epochs deferred; an epoch is a part of 140.
balance(model, eta=None, lam=None, class_balance=_bofl)
train.output_dir = "./output/digits/centernet_small_long_tail_bofl"
