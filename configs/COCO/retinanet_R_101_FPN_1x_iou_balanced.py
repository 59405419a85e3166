"""retinanet_R_101_FPN_1x with both IoU-balanced losses (Tables 1 and 4)."""

from iou_balanced import balance

from .retinanet_R_101_FPN_1x import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight=2.878, beta=None)  # w_loc of the authors' code
train.output_dir = "./output/retinanet_R_101_FPN_1x_iou_balanced"
