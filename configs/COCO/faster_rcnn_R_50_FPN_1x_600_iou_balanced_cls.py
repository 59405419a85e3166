"""faster_rcnn_R_50_FPN_1x_600 with the IoU-balanced classification loss only (Table 7)."""

from iou_balanced import balance

from .faster_rcnn_R_50_FPN_1x_600 import (
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

balance(model, eta=1.3, lam=None, beta=None)  # the authors' value
train.output_dir = "./output/faster_rcnn_R_50_FPN_1x_600_iou_balanced_cls"
