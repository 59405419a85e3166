"""CenterNet MNV2, the baseline of Tables 1, 6, 8, 10 and 11 of "Balance-Oriented Focal Loss"."""

from ..common.adam import optimizer
from ..common.centernet_schedule import lr_multiplier, max_iter
from ..common.data.coco_centernet import dataloader, datasets
from ..common.models.centernet import model
from ..common.train import train

train.init_checkpoint = "timm://mobilenetv2_100.ra_in1k"
train.output_dir = "./output/centernet_MNV2_140e"
train.reference_batch_size = 128
train.max_iter = max_iter  # 140 epochs
train.eval_period = train.checkpointer.period = max_iter // 28  # 5 epochs
