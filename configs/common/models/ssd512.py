"""SSD512 with VGG16 (arXiv 1512.02325): SSD300 with a level more, for COCO."""

from detectron2.layers import ShapeSpec

from .ssd300 import model

model.backbone.image_size = 512
model.head_in_features.append("conv10_2")
model.head.input_shape.append(ShapeSpec(channels=256))
model.head.num_anchors = [4, 6, 6, 6, 6, 4, 4]
# In pixels: 20, 51, 133, 215, 296, 378, 460 and 542.
model.anchor_generator.min_max_sizes.update(
    image_size=512, num_levels=7, scale_range=(0.1, 0.9), first_scale=0.04
)
model.anchor_generator.aspect_ratios = [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]
model.anchor_generator.strides = [8, 16, 32, 64, 128, 256, 512]
