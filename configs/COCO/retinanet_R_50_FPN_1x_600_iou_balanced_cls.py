"""retinanet_R_50_FPN_1x_600 with the IoU-balanced classification loss only (Tables 2 and 3)."""

from iou_balanced import balance

from .retinanet_R_50_FPN_1x_600 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=None, beta=None)
train.output_dir = "./output/retinanet_R_50_FPN_1x_600_iou_balanced_cls"
