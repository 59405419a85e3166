"""CenterNet on ResNet-101."""

from .centernet_resnet18 import model

model.backbone.bottom_up.name = "resnet101.tv_in1k"
