"""retinanet_R_50_FPN_1x_600 with the IoU-balanced localization loss only (Tables 2 and 3)."""

from iou_balanced import balance

from .retinanet_R_50_FPN_1x_600 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=None, lam=1.5, weight=3.049, beta=None)  # w_loc of Table 3
train.output_dir = "./output/retinanet_R_50_FPN_1x_600_iou_balanced_loc"
