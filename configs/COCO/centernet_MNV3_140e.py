"""CenterNet MNV3, a baseline of Table 3 of "Balance-Oriented Focal Loss"."""

from ..common.models.centernet_mobilenetv3 import model
from .centernet_MNV2_140e import dataloader, datasets, lr_multiplier, optimizer, train

train.init_checkpoint = "timm://mobilenetv3_large_100.ra_in1k"
train.output_dir = "./output/centernet_MNV3_140e"
