"""CenterNet on DLA-34: iterative deep aggregation as its neck, testing at the full resolution."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import DLAUpNeck
from iou_balanced.data import CenterPad

from .centernet import model

_levels = ["c2", "c3", "c4", "c5"]  # strides 4 to 32 with 64, 128, 256, 512 channels
_bottom_up = model.backbone.bottom_up
_bottom_up.name, _bottom_up.out_features = "dla34.in1k", _levels
model.backbone = L(DLAUpNeck)(bottom_up=_bottom_up, in_features=_levels, deformable=True, norm="BN")
# The head of the authors' DLA-34: wider, offset and size from PyTorch's own initial weights.
model.head.head_channels, model.head.regression_std = 256, None
model.canvas = L(CenterPad)(divisor=32)
# BatchNorm in the head: see centernet_resnet18.py.
