"""CenterNet's whole augmentation on images whose objects can be seen: all parts move together."""

import detectron2.data.transforms as T
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from iou_balanced.data import (
    BoxAwareDatasetMapper,
    CenterFit,
    CenterPad,
    ColorJitter,
    RandomCenterScale,
)

W, H = 90, 60
BOXES = [(3, 4, 33, 26), (40, 2, 88, 30), (10, 30, 35, 59), (38, 33, 89, 58)]
GEOMETRY = [
    RandomCenterScale(size=(64, 64), scales=(0.5, 0.6, 1.0, 1.3), border=10),
    T.RandomFlip(),
]


@pytest.fixture
def make_record(tmp_path):
    """make_record(boxes, rle): black, with the boxes filled with 60, 120, 180, 240."""

    def make(boxes, rle=False):
        pixels = np.zeros((H, W), dtype=np.uint8)
        annotations = []
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            pixels[y0:y1, x0:x1] = 60 * (number + 1)
            mask = np.zeros((H, W), dtype=np.uint8, order="F")
            mask[y0:y1, x0:x1] = 1
            polygons = [[float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]]
            annotations.append(
                {
                    "bbox": [float(v) for v in (x0, y0, x1, y1)],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": number,
                    "segmentation": mask_util.encode(mask) if rle else polygons,
                }
            )
        Image.fromarray(np.stack([pixels] * 3, axis=2)).save(tmp_path / "image.png")
        return {
            "file_name": str(tmp_path / "image.png"),
            "height": H,
            "width": W,
            "annotations": annotations,
        }

    return make


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
@pytest.mark.parametrize("mapper_class", [BoxAwareDatasetMapper, DatasetMapper])
def test_boxes_and_masks_follow_the_image(masks, mapper_class, make_record):
    mapper = mapper_class(
        is_train=True,
        augmentations=GEOMETRY,
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format=masks,
    )
    record = make_record(BOXES, rle=masks == "bitmask")
    seen, dropped = 0, 0
    for seed in range(60):
        np.random.seed(seed)
        result = mapper(record)
        image, instances = result["image"][0].numpy(), result["instances"]
        assert image.shape == (64, 64) == instances.image_size
        boxes = instances.gt_boxes.tensor.numpy()
        assert boxes.min() >= 0 and boxes.max() <= 64 and (boxes[:, 2:] > boxes[:, :2]).all()
        tight = instances.gt_masks.get_bounding_boxes().tensor.numpy()
        slack = 1e-3 if masks == "polygon" else 0.5 + 1e-3
        assert np.abs(tight - boxes).max() <= slack
        for box, number in zip(boxes, instances.gt_classes.tolist(), strict=True):
            x0, y0, x1, y1 = box.round().astype(int)
            # two pixels from its sides, nothing but the object is seen
            assert (
                image[y0 + 2 : max(y1 - 2, 0), x0 + 2 : max(x1 - 2, 0)] == 60 * (number + 1)
            ).all()
            seen += 1
        dropped += 4 - len(boxes)
        # what is not in a box is black, but for a pixel along the sides
        rest = image.copy()
        for x0, y0, x1, y1 in boxes:
            y, x = max(int(y0) - 1, 0), max(int(x0) - 1, 0)
            rest[y : int(np.ceil(y1)) + 1, x : int(np.ceil(x1)) + 1] = 0
        assert not rest.any()
    assert seen > 150 and dropped > 10


def test_images_without_boxes(make_record):
    mapper = BoxAwareDatasetMapper(
        is_train=True, augmentations=[*GEOMETRY, ColorJitter()], image_format="BGR"
    )
    result = mapper(make_record([]))
    assert result["image"].shape == (3, 64, 64) and result["image"].dtype == torch.float32
    assert len(result["instances"]) == 0 and result["instances"].gt_boxes.tensor.shape == (0, 4)
    # an object in a corner, which most of the windows miss, is dropped and not left without area
    counts = []
    for seed in range(40):
        np.random.seed(seed)
        boxes = mapper(make_record([(0, 0, 3, 3)]))["instances"].gt_boxes
        assert boxes.nonempty().all()
        counts.append(len(boxes))
    assert set(counts) == {0, 1}


@pytest.mark.parametrize("canvas", [CenterFit(size=(64, 64)), CenterPad()])
def test_objects_are_found_where_they_were(canvas, make_record):
    """A detector that finds the bright object on the canvas finds it in the image."""
    mapper = BoxAwareDatasetMapper(is_train=False, augmentations=[canvas], image_format="RGB")
    result = mapper(make_record([(40, 10, 81, 52)]))
    image = result["image"][0]
    assert tuple(image.shape) == ((64, 64) if isinstance(canvas, CenterFit) else (64, 96))
    y, x = torch.nonzero(image > 30, as_tuple=True)
    box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])[None].float()
    found = Instances(tuple(image.shape), pred_boxes=Boxes(box), scores=torch.ones(1))
    (restored,) = canvas.postprocess(found, result["height"], result["width"]).pred_boxes.tensor
    # half a pixel of the canvas, of which there are 64 / 90 for one of the image, or 1
    slack = 0.5 * W / 64 + 1e-3 if isinstance(canvas, CenterFit) else 0
    assert (restored - torch.tensor([40.0, 10, 81, 52])).abs().max() <= slack
