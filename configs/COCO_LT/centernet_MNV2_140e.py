"""CenterNet MNV2 on COCO-LT, the baseline of Table 12 of "Balance-Oriented Focal Loss"."""

from ..COCO.centernet_MNV2_140e import dataloader, model, optimizer, train
from ..common.centernet_lt_schedule import lr_multiplier, max_iter
from ..common.data.coco_lt import datasets

train.output_dir = "./output/coco_lt/centernet_MNV2_140e"
train.max_iter = max_iter  # 140 epochs
train.eval_period = train.checkpointer.period = max_iter // 28  # 5 epochs
