"""faster_rcnn_R_50_FPN_1x_600 with the IoU-balanced localization loss only (Table 7)."""

from iou_balanced import balance

from .faster_rcnn_R_50_FPN_1x_600 import (
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

balance(model, eta=None, lam=1.5, weight=2.4, beta=None)  # the authors' values
train.output_dir = "./output/faster_rcnn_R_50_FPN_1x_600_iou_balanced_loc"
