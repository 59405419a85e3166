"""retinanet_X_101_32x4d_FPN_1x with both IoU-balanced losses (Tables 1 and 4)."""

from iou_balanced import balance

from .retinanet_X_101_32x4d_FPN_1x import (
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)  # w_loc is measured
train.output_dir = "./output/retinanet_X_101_32x4d_FPN_1x_iou_balanced"
