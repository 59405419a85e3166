"""FCOS on EfficientNet-Lite0 with both IoU-balanced losses."""

from iou_balanced import balance

from .fcos_lite0 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model)
train.output_dir = "./output/photos/fcos_lite0_iou_balanced"
