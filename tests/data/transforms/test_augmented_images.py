"""SSD's whole augmentation on images whose objects can be seen: all parts must move together."""

import detectron2.data.transforms as T
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from iou_balanced.data import (
    BoxAwareDatasetMapper,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomExpand,
)
from iou_balanced.data.transforms.augmentations import KeepCentersCropTransform

W, H = 60, 40


@pytest.fixture
def make_record(tmp_path):
    """make_record(boxes, rle): black, with the boxes filled with the grey levels 101, 102, ..."""

    def make(boxes, rle=False):
        pixels = np.zeros((H, W), dtype=np.uint8)
        annotations = []
        for level, box in enumerate(boxes, start=101):
            x0, y0, x1, y1 = box
            pixels[y0:y1, x0:x1] = level
            mask = np.zeros((H, W), dtype=np.uint8, order="F")
            mask[y0:y1, x0:x1] = 1
            x0, y0, x1, y1 = map(float, box)
            polygons = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            annotations.append(
                {
                    "bbox": [x0, y0, x1, y1],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": level,
                    "segmentation": mask_util.encode(mask) if rle else polygons,
                }
            )
        Image.fromarray(np.stack([pixels] * 3, axis=2)).save(tmp_path / "image.png")
        Image.fromarray(pixels).save(tmp_path / "sem_seg.png")
        return {
            "file_name": str(tmp_path / "image.png"),
            "sem_seg_file_name": str(tmp_path / "sem_seg.png"),
            "height": H,
            "width": W,
            "annotations": annotations,
        }

    return make


def mapper_of(augmentations, **more):
    return BoxAwareDatasetMapper(
        is_train=True,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=True,
        **more,
    )


def extent(mask):
    """XYXY of the pixels that are set."""
    (y,), (x,) = (np.nonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [x[0], y[0], x[-1] + 1, y[-1] + 1]


BOXES = [(3, 4, 23, 16), (30, 2, 58, 20), (10, 20, 25, 39), (28, 22, 59, 38)]


@pytest.mark.parametrize("masks", ["polygon", "polygon as bitmask", "rle"])
@pytest.mark.parametrize("size", [None, (90, 120)], ids=["", "resized"])
def test_boxes_and_masks_follow_the_image(masks, size, make_record):
    record = make_record(BOXES, rle=masks == "rle")
    # Nearest: the levels stay as they are, so that they can be found again.
    resize = [T.Resize(size, Image.NEAREST)] if size else []
    mapper = mapper_of(
        [
            RandomExpand(fill=(0, 0, 0), max_ratio=2),
            MinIoURandomCrop(),
            *resize,
            T.RandomFlip(),
        ],
        instance_mask_format="polygon" if masks == "polygon" else "bitmask",
    )
    # After a resize, a pixel is seen where its middle is in the box.
    slack = 0.5 + 1e-3 if size else 1e-3
    # Polygons become bitmasks by pycocotools, which rounds vertices.
    mask_slack = {"polygon": slack, "polygon as bitmask": 1 if size else 0, "rle": 0}[masks]
    sizes, kept = set(), set()
    for seed in range(60):
        np.random.seed(seed)
        result = mapper(record)
        image, instances = result["image"].numpy(), result["instances"]
        assert np.array_equal(image[0], result["sem_seg"].numpy())
        sizes.add(image.shape)
        mask_boxes = instances.gt_masks.get_bounding_boxes().tensor.numpy()
        for i, level in enumerate(instances.gt_classes.tolist()):
            seen = image[0] == level
            kept.add(level)
            box = instances.gt_boxes.tensor[i].numpy()
            assert np.abs(box - extent(seen)).max() <= slack
            assert np.abs(mask_boxes[i] - extent(seen)).max() <= mask_slack
            if masks != "polygon" and mask_slack == 0:
                assert np.array_equal(instances.gt_masks.tensor[i].numpy(), seen)
    assert kept == {101, 102, 103, 104}
    assert len(sizes) == 1 if size else len(sizes) > 20


def test_only_objects_with_their_center_in_the_crop_stay(make_record):
    """All sides are odd, so that there is a pixel in the middle: what stays shows it."""
    boxes = [(3, 4, 24, 17), (31, 2, 58, 21), (10, 22, 25, 39), (29, 22, 58, 39)]
    record = make_record(boxes)
    pixels = np.array(Image.open(record["file_name"]))
    for x0, y0, x1, y1 in boxes:
        pixels[(y0 + y1) // 2, (x0 + x1) // 2] += 100
    Image.fromarray(pixels).save(record["file_name"])
    mapper = mapper_of([MinIoURandomCrop()])
    dropped = 0
    for seed in range(150):
        np.random.seed(seed)
        result = mapper(record)
        image = result["image"][0].numpy()
        expected = [level for level in (101, 102, 103, 104) if (image == level + 100).any()]
        assert expected and result["instances"].gt_classes.tolist() == expected
        dropped += 4 - len(expected)
    assert dropped > 100


def test_random_images_property(make_record):
    """Boxes of any size: those that stay have an area and are inside of the image."""
    rng = np.random.RandomState(1)
    augmentations = [
        RandomExpand(),
        MinIoURandomCrop(),
        T.Resize((48, 48)),
        T.RandomFlip(),
        PhotometricDistortion(),
    ]
    mapper = mapper_of(augmentations)
    total = count = 0
    for seed in range(150):
        corners = np.sort(rng.uniform(0, 1, (rng.randint(0, 8), 2, 2)) ** 2, axis=1)
        boxes = (corners * (W, H)).astype(int).reshape(-1, 4)
        total += (boxes[:, 2:] > boxes[:, :2]).all(axis=1).sum()
        record = make_record(boxes.tolist())
        np.random.seed(seed)
        result = mapper(record)
        assert result["image"].shape == (3, 48, 48) and result["image"].dtype.itemsize == 1
        instances = result["instances"]
        assert instances.image_size == (48, 48)
        x0, y0, x1, y1 = instances.gt_boxes.tensor.numpy().T
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 48).all() and (y1 <= 48).all()
        assert (x1 > x0).all() and (y1 > y0).all()
        if len(instances) > 0:  # a rectangle's polygon is cut as the rectangle is
            masks = instances.gt_masks.get_bounding_boxes().tensor.numpy()
            np.testing.assert_allclose(masks, instances.gt_boxes.tensor.numpy(), atol=1e-3)
        count += len(instances)
    assert 0.4 < count / total < 0.9


def test_the_crop_is_what_drops_them(make_record, monkeypatch):
    """Without the rule of centers more objects would stay: the rest of them is visible."""
    mapper = mapper_of([MinIoURandomCrop()])
    record = make_record(BOXES)
    counts = []
    for everything in (False, True):
        if everything:
            monkeypatch.setattr(
                KeepCentersCropTransform,
                "contains_centers",
                lambda self, boxes: np.ones(len(boxes), dtype=bool),
            )
        np.random.seed(0)
        counts.append(sum(len(mapper(record)["instances"]) for _ in range(60)))
    assert counts[0] < counts[1]
