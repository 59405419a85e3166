"""Small FCOS on the long-tailed digits, the baseline: minutes on two CPU cores."""

from ..common.data.digits_long_tail import dataloader, datasets
from .fcos_small import lr_multiplier, model, optimizer, train

train.output_dir = "./output/digits/fcos_small_long_tail"
