"""CenterNet MNV2 with step decay, the baseline in Table 6 of "Balance-Oriented Focal Loss"."""

from ..common.centernet_schedule import step_lr_multiplier as lr_multiplier
from .centernet_MNV2_140e import dataloader, datasets, model, optimizer, train

train.output_dir = "./output/centernet_MNV2_140e_step"
