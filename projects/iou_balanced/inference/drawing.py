"""Pictures of detections: boxes with class names and scores, and masks where there are some.

By Pillow, because Detectron2's Visualizer needs OpenCV, and takes longer than most detectors.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw, ImageFont

_MASK_ALPHA = 0.4


def draw(image: np.ndarray, instances: Instances, class_names: Sequence[str]) -> np.ndarray:
    """The image with its detections, (H, W, 3) uint8 RGB; those of a class have one color.

    The highest scores are on top.

    Args:
        image: (H, W, 3) uint8 RGB. Not modified.
        instances: with pred_boxes in its pixels, scores and pred_classes, and pred_masks or not.
        class_names: (K,) in the order of pred_classes.
    """
    colors = colormap(rgb=True, maximum=255)
    order = instances.scores.argsort().tolist()
    classes = instances.pred_classes.tolist()
    color_of = [tuple(int(v) for v in colors[c % len(colors)]) for c in classes]
    if instances.has("pred_masks"):
        image = image.copy()
        for i in order:
            mask = instances.pred_masks[i].numpy()
            tint = _MASK_ALPHA * np.array(color_of[i])
            image[mask] = ((1 - _MASK_ALPHA) * image[mask] + tint).astype(np.uint8)
    picture = Image.fromarray(image)
    size = max(picture.size)
    font = ImageFont.load_default(size=max(10, size / 60))
    canvas = ImageDraw.Draw(picture)
    for i in order:
        box = instances.pred_boxes.tensor[i].tolist()
        label = f"{class_names[classes[i]]} {100 * instances.scores[i]:.0f}%"
        canvas.rectangle(box, outline=color_of[i], width=max(1, round(size / 400)))
        _write(canvas, label, box, color_of[i], font)
    return np.asarray(picture)


def _write(canvas: ImageDraw.ImageDraw, label: str, box, color, font) -> None:
    """The label above the box, or inside where there is no room above it."""
    left, top, right, bottom = canvas.textbbox((0, 0), label, font=font)
    width, height = right + left, bottom + top
    x = max(0, min(box[0], canvas.im.size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]
    canvas.rectangle((x, y, x + width, y + height), fill=color)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    canvas.text((x, y), label, fill="black" if luminance > 128 else "white", font=font)
