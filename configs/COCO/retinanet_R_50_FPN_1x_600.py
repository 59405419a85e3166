"""RetinaNet R50 at [600, 1000], the baseline of the ablations in Tables 2 and 3."""

from ..common.coco_schedule import lr_multiplier, max_iter
from ..common.data.coco_600 import dataloader, datasets
from ..common.models.retinanet import model
from ..common.optim import optimizer
from ..common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/retinanet_R_50_FPN_1x_600"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
