"""Small FCOS on the long-tailed digits with balance-oriented focal loss."""

from detectron2.config import LazyCall as L

from iou_balanced import balance
from iou_balanced.losses import BalanceOriented, LinearSchedule

from .fcos_small_long_tail import dataloader, datasets, lr_multiplier, model, optimizer, train

# The paper's FCOS: 12 epochs, the first 3 deferred. Here an epoch is a twelfth of the training.
_schedule = L(LinearSchedule)(total_epochs=12, deferred_epochs=3)
_weights = L(BalanceOriented)(eta=0.999, count_over="process", schedule=_schedule)
balance(model, eta=None, lam=None, class_balance=_weights)
train.output_dir = "./output/digits/fcos_small_long_tail_bofl"
