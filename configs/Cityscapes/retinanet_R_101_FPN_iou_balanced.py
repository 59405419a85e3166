"""retinanet_R_101_FPN on Cityscapes with both IoU-balanced losses (Table 6).

It starts from the baseline's COCO checkpoint, so that the losses of this training are all that
differs; the paper does not say which one its balanced models start from.
"""

from iou_balanced import balance

from .retinanet_R_101_FPN import dataloader, datasets, lr_multiplier, model, optimizer, train

# eta and lam are those of COCO, as the paper says. w_loc keeps the sum of the first iteration's
# loss. A head that COCO has trained has high IoUs from the start, so the w_loc of COCO, which is
# for an untrained head, would not keep it. None is published for Cityscapes; it is measured.
balance(model, eta=1.5, lam=1.5, weight="auto", beta=None)
train.output_dir = "./output/cityscapes/retinanet_R_101_FPN_iou_balanced"
