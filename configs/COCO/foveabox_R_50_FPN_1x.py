"""FoveaBox R50, the baseline of Table 1."""

from ..common.coco_schedule import lr_multiplier, max_iter
from ..common.data.coco import dataloader, datasets
from ..common.models.foveabox import model
from ..common.optim import optimizer
from ..common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/foveabox_R_50_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
