"""retinanet_R_50_FPN_1x_600 with both IoU-balanced losses (Table 2)."""

from iou_balanced import balance

from .retinanet_R_50_FPN_1x_600 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight=3.049, beta=None)  # w_loc of Table 3
train.output_dir = "./output/retinanet_R_50_FPN_1x_600_iou_balanced"
