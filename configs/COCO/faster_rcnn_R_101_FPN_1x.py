"""Faster R-CNN R101, a baseline of Table 1."""

from ..common.coco_schedule import lr_multiplier, max_iter
from ..common.data.coco import dataloader, datasets
from ..common.models.faster_rcnn import model
from ..common.optim import optimizer
from ..common.train import train

model.backbone.bottom_up.stages.depth = 101
optimizer.lr = 0.02  # twice RetinaNet's for the same batch of 16
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.output_dir = "./output/faster_rcnn_R_101_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
