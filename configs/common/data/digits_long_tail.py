"""The digits with a long tail: training images show the first class 100 times the last one.

The test set is the balanced one of the other digits configs.
"""

from .digits import dataloader, datasets

datasets.train.long_tail = True
datasets.train.imbalance = 100.0
