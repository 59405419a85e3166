"""Small RetinaNet on the long-tailed digits with balance-oriented focal loss."""

from detectron2.config import LazyCall as L

from iou_balanced import balance
from iou_balanced.losses import BalanceOriented, LinearSchedule

from .retinanet_small_long_tail import dataloader, datasets, lr_multiplier, model, optimizer, train

# Counted by image with an eta of 0.8, as the paper's CenterNet; the deferral of its FCOS.
_schedule = L(LinearSchedule)(total_epochs=12, deferred_epochs=3)
_weights = L(BalanceOriented)(eta=0.8, count_over="image", schedule=_schedule)
balance(model, eta=None, lam=None, beta=None, class_balance=_weights)
train.output_dir = "./output/digits/retinanet_small_long_tail_bofl"
