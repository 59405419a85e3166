"""ssd512 on PASCAL VOC with both IoU-balanced losses (Table 5, which calls it SSD500)."""

from iou_balanced import balance

from .ssd512 import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)
train.output_dir = "./output/voc/ssd512_iou_balanced"
