"""CenterNet on ResNet-18: deformable convolutions in the neck, testing at the full resolution."""

from detectron2.config import LazyCall as L

from iou_balanced.data import CenterPad

from .centernet import model

# torchvision's first weights, from which the authors of CenterNet start too.
model.backbone.bottom_up.name = "resnet18.tv_in1k"
model.backbone.deformable = True
model.canvas = L(CenterPad)(divisor=32)
# The head keeps the BatchNorm of Section 5.1. Whether the paper means the MobileNets only is open:
# Section 5.2 changes "only" the schedule of ResNets and DLA; model.head.norm="" is their original.
