"""retinanet_X_101_32x4d_FPN_1x with the IoU-balanced localization loss only."""

from iou_balanced import balance

from .retinanet_X_101_32x4d_FPN_1x import (
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

balance(model, eta=None, lam=1.5, weight="auto", beta=None)  # w_loc is measured
train.output_dir = "./output/retinanet_X_101_32x4d_FPN_1x_iou_balanced_loc"
