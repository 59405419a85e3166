"""CenterNet R18, a baseline of Table 3 of "Balance-Oriented Focal Loss"."""

from ..common.models.centernet_resnet18 import model
from .centernet_MNV2_140e import dataloader, datasets, lr_multiplier, optimizer, train

train.init_checkpoint = "timm://resnet18.tv_in1k"
train.output_dir = "./output/centernet_R_18_140e"
