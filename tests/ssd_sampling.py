"""Which parameters SSD's sampling of default boxes leaves out of a training step."""

import contextlib
from unittest import mock

import torch

from iou_balanced.modeling import SSD
from iou_balanced.modeling.ssd import ssd


@contextlib.contextmanager
def unsampled_parameters(model):
    """Names of the parameters that have no gradient because SSD has no loss where they lead to.

    SSD trains on positives and mined negatives only. A level without either has no classification
    loss, one without positives no localization loss, and an extra layer rests where its own level
    and all after it have neither. This is read from the labels and from what was mined, not from
    the gradients.

    Yields:
        A set, which is filled when the model was called in training; empty for other models.
    """
    names = set()
    if not isinstance(model, SSD):
        yield names
        return
    sizes, mine = [], ssd.mine_hard_negatives

    def measure(head, args, predictions):
        sizes[:] = [x[0].numel() // 4 for x in predictions[1]]

    def record(terms, gt_labels, num_classes, ratio):
        mined = mine(terms, gt_labels, num_classes, ratio)
        positive = (gt_labels >= 0) & (gt_labels != num_classes)
        later_rest = True
        levels = zip(positive.split(sizes, dim=1), mined.split(sizes, dim=1), strict=True)
        for i, (pos, neg) in reversed(list(enumerate(levels))):
            rests = not torch.any(pos | neg)
            later_rest = later_rest and rests
            modules = [model.head.bbox_pred[i]] if not pos.any() else []
            modules += [model.head.cls_score[i]] if rests else []
            feature = model.head_in_features[i]
            if later_rest and feature in model.backbone.extra_layers:
                modules.append(model.backbone.extra_layers[feature])
            parameters = {id(p) for module in modules for p in module.parameters()}
            names.update(k for k, p in model.named_parameters() if id(p) in parameters)
        return mined

    handle = model.head.register_forward_hook(measure)
    with mock.patch.object(ssd, "mine_hard_negatives", record):
        yield names
    handle.remove()
