"""CenterNet DLA-34, a baseline of Table 3 of "Balance-Oriented Focal Loss"."""

from ..common.models.centernet_dla34 import model
from .centernet_MNV2_140e import dataloader, datasets, lr_multiplier, optimizer, train

train.init_checkpoint = "timm://dla34.in1k"
train.output_dir = "./output/centernet_DLA_34_140e"
