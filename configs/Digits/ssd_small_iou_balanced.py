"""Small SSD on the digits with both IoU-balanced losses."""

from iou_balanced import balance

from .ssd_small import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)
train.output_dir = "./output/digits/ssd_small_iou_balanced"
