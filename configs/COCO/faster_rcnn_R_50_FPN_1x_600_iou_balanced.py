"""faster_rcnn_R_50_FPN_1x_600 with both IoU-balanced losses (Table 7)."""

from iou_balanced import balance

from .faster_rcnn_R_50_FPN_1x_600 import (
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

balance(model, eta=1.3, lam=1.5, weight=2.4, beta=None)  # the authors' values
train.output_dir = "./output/faster_rcnn_R_50_FPN_1x_600_iou_balanced"
