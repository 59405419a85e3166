"""Mask R-CNN's masks, which have a row for each class or one for all."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from .test_class_mapping import SHARED, TARGET, apply, predictor, randomize


def mask_head(num_classes):
    return MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=8, width=14, height=14), num_classes=num_classes, conv_dims=[8, 8]
    )


class Heads(nn.Module):
    """What Mask R-CNN has for each class."""

    def __init__(self, num_classes, num_masks):
        super().__init__()
        self.box, self.mask = predictor(num_classes), mask_head(num_masks)


def test_a_mask_for_each_class():
    source, target = randomize(Heads(4, 4)), Heads(3, 3)
    before = apply(source, target)
    for name in ("weight", "bias"):
        theirs, ours = getattr(source.mask.predictor, name), getattr(target.mask.predictor, name)
        for i, j in SHARED:
            assert torch.equal(ours[i], theirs[j])
        assert torch.equal(ours[0], before[f"mask.predictor.{name}"][0])
    assert torch.equal(target.mask.deconv.weight, source.mask.deconv.weight)


@pytest.mark.parametrize("own_names", [TARGET, ["car"]])
def test_one_mask_for_all_classes(own_names):
    source, target = randomize(Heads(4, 1)), Heads(len(own_names), 1)
    apply(source, target, own_names=own_names)
    assert torch.equal(target.mask.predictor.weight, source.mask.predictor.weight)
    assert torch.equal(target.box.cls_score.bias[-1], source.box.cls_score.bias[-1])
