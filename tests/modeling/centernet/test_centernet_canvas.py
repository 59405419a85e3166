"""CenterNet's detections on a canvas, in pixels of the image that is on it."""

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.structures import Boxes

from iou_balanced.data import CenterPad

from ..detector_mixin import build
from .test_centernet import small_centernet


def test_detections_come_back_from_the_canvas():
    """70 x 100 pixels in the middle of 96 x 128 have 13 rows above and 14 columns to the left."""
    canvas = CenterPad(divisor=32)
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    aug_input = T.AugInput(image)
    aug_input.apply_augmentations([canvas])
    pixels = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))).float()
    assert pixels.shape == (3, 96, 128)
    config = small_centernet()
    plain = build(config).eval()
    config.canvas = L(CenterPad)(divisor=32)
    ours = build(config).eval()
    ours.load_state_dict(plain.state_dict())
    with torch.no_grad():
        (on_canvas,) = plain([{"image": pixels}])
        (in_image,) = ours([{"image": pixels, "height": 70, "width": 100}])
    boxes = on_canvas["instances"].pred_boxes
    moved = Boxes(boxes.tensor - torch.tensor([14.0, 13, 14, 13]))
    moved.clip((70, 100))
    kept = moved.nonempty()
    result = in_image["instances"]
    assert result.image_size == (70, 100) and 0 < len(result) < 100
    torch.testing.assert_close(result.pred_boxes.tensor, moved.tensor[kept])
    torch.testing.assert_close(result.scores, on_canvas["instances"].scores[kept])
    with pytest.raises(ValueError, match="only test augmentation"):
        ours([{"image": pixels, "height": 70, "width": 200}])
    with torch.no_grad():  # the original's size is not known: pixels of what was given
        (unplaced,) = ours([{"image": pixels}])
    assert torch.equal(unplaced["instances"].pred_boxes.tensor, boxes.tensor)
    message = r'"height" and "width" .* neither of them, but got 70 and None for a\.jpg'
    with pytest.raises(ValueError, match=message):
        ours([{"image": pixels, "height": 70, "file_name": "a.jpg"}])
