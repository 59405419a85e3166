"""Small RetinaNet on the long-tailed digits with balance-oriented focal loss."""

from iou_balanced import balance

from ..common.class_balance import fcos_bofl as _bofl
from .retinanet_small_long_tail import dataloader, datasets, lr_multiplier, model, optimizer, train

# Counted by image with an eta of 0.8, as the paper's CenterNet; the schedule of its FCOS.
_bofl.update(eta=0.8, count_over="image")
balance(model, eta=None, lam=None, beta=None, class_balance=_bofl)
train.output_dir = "./output/digits/retinanet_small_long_tail_bofl"
