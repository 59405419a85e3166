"""foveabox_R_50_FPN_1x with both IoU-balanced losses (Table 1)."""

from iou_balanced import balance

from .foveabox_R_50_FPN_1x import dataloader, datasets, lr_multiplier, model, optimizer, train

balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)  # the paper gives no w_loc for it
train.output_dir = "./output/foveabox_R_50_FPN_1x_iou_balanced"
