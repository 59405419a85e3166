"""Small CenterNet on the digits, the baseline: minutes on two CPU cores."""

import torch

from ..common.data.digits import dataloader, datasets
from ..common.models.centernet_small import model
from ..common.one_cycle import lr_multiplier, optimizer
from ..common.train import train

model.num_classes = 10
train.output_dir = "./output/digits/centernet_small"
train.device = "cuda" if torch.cuda.is_available() else "cpu"
dataloader.train.total_batch_size = train.reference_batch_size = 8
train.max_iter = 1500  # 5 epochs of 2,400 images
train.eval_period = train.checkpointer.period = 1500
train.seed = 0
