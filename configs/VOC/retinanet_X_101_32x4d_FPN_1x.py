"""RetinaNet ResNeXt-101 32x4d, the baseline of Table 5."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    make_resnext_stages,
    register_weights_handler,
)

from ..common.data.voc import dataloader, datasets
from ..common.models.retinanet import model
from ..common.optim import optimizer
from ..common.train import train
from ..common.voc_schedule import lr_multiplier, max_iter

model.num_classes = 20
model.backbone.bottom_up.stages = L(make_resnext_stages)(
    depth=101, num_groups=32, width_per_group=4, norm="FrozenBN", stride_in_1x1=False
)
# Detectron2's model zoo has no ResNeXt-101 32x4d: its weights come from timm, which normalises RGB.
register_weights_handler()
train.init_checkpoint = "timm://resnext101_32x4d.gluon_in1k"
model.pixel_mean, model.pixel_std = IMAGENET_RGB_MEAN, IMAGENET_RGB_STD
model.input_format = dataloader.train.mapper.image_format = "RGB"
train.output_dir = "./output/voc/retinanet_X_101_32x4d_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
