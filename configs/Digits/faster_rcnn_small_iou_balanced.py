"""Small Faster R-CNN on the digits with both IoU-balanced losses."""

from iou_balanced import balance

from .faster_rcnn_small import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.3, lam=1.5, weight=2.4, beta=None)  # the authors' values
train.output_dir = "./output/digits/faster_rcnn_small_iou_balanced"
