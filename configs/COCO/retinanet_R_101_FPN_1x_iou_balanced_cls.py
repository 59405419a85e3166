"""retinanet_R_101_FPN_1x with the IoU-balanced classification loss only."""

from iou_balanced import balance

from .retinanet_R_101_FPN_1x import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=None, beta=None)
train.output_dir = "./output/retinanet_R_101_FPN_1x_iou_balanced_cls"
