"""Small R-CNNs from the model zoo: stock LazyConfigs with ResNet-18, few channels and 3 classes."""

import torch
from detectron2 import model_zoo
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks

from ..detector_mixin import NUM_CLASSES, make_input

CHANNELS, FC_DIM = 16, 32


def small_mask_rcnn():
    model = _shrink(model_zoo.get_config("common/models/mask_rcnn_fpn.py").model)
    _shrink_box_head(model.roi_heads.box_head, model.roi_heads.box_predictor)
    return model


def small_faster_rcnn(class_agnostic=False):
    model = small_mask_rcnn()
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        del model.roi_heads[key]
    model.roi_heads.box_predictor.cls_agnostic_bbox_reg = class_agnostic
    return model


def small_cascade_mask_rcnn():
    model = _shrink(model_zoo.get_config("common/models/cascade_rcnn.py").model)
    for head, predictor in zip(
        model.roi_heads.box_heads, model.roi_heads.box_predictors, strict=True
    ):
        _shrink_box_head(head, predictor)
    return model


def _shrink(model):
    bottom_up = model.backbone.bottom_up
    bottom_up.stages.depth = 18
    del bottom_up.stages.stride_in_1x1
    model.backbone.out_channels = CHANNELS
    model.pixel_std = [57.375, 57.120, 58.395]
    model.proposal_generator.head.in_channels = CHANNELS
    model.proposal_generator.post_nms_topk = (100, 50)
    roi_heads = model.roi_heads
    roi_heads.num_classes = NUM_CLASSES
    roi_heads.batch_size_per_image = 32
    roi_heads.mask_head.input_shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    roi_heads.mask_head.conv_dims = [CHANNELS] * 2
    return model


def _shrink_box_head(head, predictor):
    head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
    head.fc_dims = [FC_DIM]
    predictor.input_shape = ShapeSpec(channels=FC_DIM)


def make_mask_input(*args, **kwargs):
    """`make_input` whose boxes are filled: what a mask head trains on."""
    x = make_input(*args, **kwargs)
    instances = x["instances"]
    masks = torch.zeros(len(instances), *instances.image_size, dtype=torch.bool)
    for mask, box in zip(masks, instances.gt_boxes.tensor.int().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = True
    instances.gt_masks = BitMasks(masks)
    return x
