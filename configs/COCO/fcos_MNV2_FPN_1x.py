"""FCOS MobileNetV2, the baseline of Table 9 of "Balance-Oriented Focal Loss"."""

from iou_balanced.backbones import register_weights_handler

from ..common.coco_cosine_schedule import lr_multiplier, max_iter
from ..common.data.coco import dataloader, datasets
from ..common.models.fcos_mobilenetv2 import model
from ..common.optim import optimizer
from ..common.train import train

# The settings of fcos_R_50_FPN_1x.py, because the paper gives none of its own.
dataloader.train.mapper.image_format = "RGB"
register_weights_handler()
train.init_checkpoint = "timm://mobilenetv2_100.ra_in1k"
train.output_dir = "./output/fcos_MNV2_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
