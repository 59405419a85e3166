"""CenterNet on MobileNetV3 (large, width 1.0)."""

from .centernet import model

model.backbone.bottom_up.name = "mobilenetv3_large_100.ra_in1k"
