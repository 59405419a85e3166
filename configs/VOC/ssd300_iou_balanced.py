"""ssd300 on PASCAL VOC with both IoU-balanced losses (Table 5)."""

from iou_balanced import balance

from .ssd300 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)
train.output_dir = "./output/voc/ssd300_iou_balanced"
