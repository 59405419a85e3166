"""Small RetinaNet on the digits with both IoU-balanced losses."""

from iou_balanced import balance

from .retinanet_small import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight=3.049, beta=None)  # w_loc of Table 3
train.output_dir = "./output/digits/retinanet_small_iou_balanced"
