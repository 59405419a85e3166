"""Small RetinaNet on the long-tailed digits, the baseline: minutes on two CPU cores."""

from ..common.data.digits_long_tail import dataloader, datasets
from .retinanet_small import lr_multiplier, model, optimizer, train

train.output_dir = "./output/digits/retinanet_small_long_tail"
