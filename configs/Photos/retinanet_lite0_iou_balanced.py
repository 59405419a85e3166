"""RetinaNet on EfficientNet-Lite0 with both IoU-balanced losses."""

from iou_balanced import balance

from .retinanet_lite0 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model)
train.output_dir = "./output/photos/retinanet_lite0_iou_balanced"
