"""retinanet_X_101_32x4d_FPN_1x with both IoU-balanced losses (Table 5)."""

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
train.output_dir = "./output/voc/retinanet_X_101_32x4d_FPN_1x_iou_balanced"
