"""retinanet_R_50_FPN_1x with both IoU-balanced losses (Table 5)."""

from iou_balanced import balance

from .retinanet_R_50_FPN_1x import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight=2.34, beta=None)  # w_loc of the authors' code
train.output_dir = "./output/voc/retinanet_R_50_FPN_1x_iou_balanced"
