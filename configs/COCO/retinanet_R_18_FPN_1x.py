"""RetinaNet R18, the baseline of Table 4."""

from iou_balanced.backbones import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    register_weights_handler,
)

from ..common.coco_schedule import lr_multiplier, max_iter
from ..common.data.coco import dataloader, datasets
from ..common.models.retinanet import model
from ..common.optim import optimizer
from ..common.train import train

model.backbone.bottom_up.stages.depth = 18
del model.backbone.bottom_up.stages.stride_in_1x1  # basic blocks have no 1x1 convolution
model.backbone.top_block.in_channels = 512
# Detectron2's model zoo has no ResNet-18: its weights come from torchvision, which normalises RGB.
register_weights_handler()
train.init_checkpoint = "torchvision://resnet18/IMAGENET1K_V1"
model.pixel_mean, model.pixel_std = IMAGENET_RGB_MEAN, IMAGENET_RGB_STD
model.input_format = dataloader.train.mapper.image_format = "RGB"
train.output_dir = "./output/retinanet_R_18_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
