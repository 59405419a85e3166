"""CenterNet R101, a baseline of Table 3 of "Balance-Oriented Focal Loss"."""

from ..common.models.centernet_resnet101 import model
from .centernet_MNV2_140e import dataloader, datasets, lr_multiplier, optimizer, train

train.init_checkpoint = "timm://resnet101.tv_in1k"
train.output_dir = "./output/centernet_R_101_140e"
