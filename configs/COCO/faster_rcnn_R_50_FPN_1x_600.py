"""Faster R-CNN R50 at [600, 1000], the baseline of Table 7."""

from ..common.coco_schedule import lr_multiplier, max_iter
from ..common.data.coco_600 import dataloader, datasets
from ..common.models.faster_rcnn import model
from ..common.optim import optimizer
from ..common.train import train

# As the authors trained it; the baselines of Table 1 regress a box for each class.
model.roi_heads.box_predictor.cls_agnostic_bbox_reg = True
optimizer.lr = 0.02  # twice RetinaNet's for the same batch of 16
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/faster_rcnn_R_50_FPN_1x_600"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
