"""FCOS R50 on COCO-LT, the baseline."""

from ..COCO.fcos_R_50_FPN_1x import model, optimizer, train
from ..common.coco_lt_schedule import lr_multiplier, max_iter
from ..common.data.coco_lt import dataloader, datasets

train.output_dir = "./output/coco_lt/fcos_R_50_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
