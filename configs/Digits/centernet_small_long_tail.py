"""Small CenterNet on digits with a long tail, the baseline: minutes on two CPU cores."""

from .centernet_small import dataloader, datasets, lr_multiplier, model, optimizer, train

# Training images show the first class 100 times the last one. The test set is the balanced one.
datasets.train.update(long_tail=True, imbalance=100.0)
train.output_dir = "./output/digits/centernet_small_long_tail"
