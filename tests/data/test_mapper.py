"""What BoxAwareDatasetMapper has in common with Detectron2's mapper, and what it adds."""

import copy
import pickle

import detectron2.data.transforms as T
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode, Instances
from omegaconf import OmegaConf
from PIL import Image

from iou_balanced.data import (
    BoxAwareDatasetMapper,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomExpand,
)
from iou_balanced.data.transforms.augmentations import KeepCentersCropTransform

W, H = 60, 40


def rle(x0, y0, x1, y1):
    mask = np.zeros((H, W), dtype=np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return mask_util.encode(mask)


def annotation(x0, y0, x1, y1, **more):
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": x0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        "keypoints": [x0, y0, 2, x1, y1, 2],
        **more,
    }


@pytest.fixture
def record(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "sem_seg.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "sem_seg.png"),
        "image_id": 7,
        "height": H,
        "width": W,
        "annotations": [
            annotation(1, 2, 11, 12),
            annotation(5, 5, 55, 35, iscrowd=1),
            annotation(20, 10, 50, 38, iscrowd=0, difficult=1),
            annotation(30, 30, 30, 35),  # no area
        ],
    }


class Spy(T.Augmentation):
    """Do nothing, and remember the boxes."""

    def get_transform(self, image, boxes):
        self.boxes = boxes
        return T.NoOpTransform()


def mapper_of(*augmentations, cls=BoxAwareDatasetMapper, is_train=True, **more):
    return cls(is_train=is_train, augmentations=augmentations, image_format="RGB", **more)


def crop(x0, y0, w, h, orig=(W, H)):
    return KeepCentersCropTransform(x0, y0, w, h, *orig)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, Instances):
        assert a.image_size == b.image_size
        assert_same(a.get_fields(), b.get_fields())
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif hasattr(a, "tensor"):  # Boxes, BitMasks, Keypoints
        assert_same(a.tensor, b.tensor)
    elif hasattr(a, "polygons"):
        for mine, other in zip(a.polygons, b.polygons, strict=True):
            assert [p.tolist() for p in mine] == [p.tolist() for p in other]
    else:
        assert a == b


ALL = {"use_instance_mask": True, "use_keypoint": True, "keypoint_hflip_indices": [1, 0]}
KINDS = {
    "boxes": {},
    "polygons": ALL,
    "polygons as bitmasks": {**ALL, "instance_mask_format": "bitmask"},
    "rle": {"use_instance_mask": True, "instance_mask_format": "bitmask"},
    "recomputed": {"use_instance_mask": True, "recompute_boxes": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_as_detectron2_where_boxes_do_not_matter(kind, record):
    if kind == "rle":
        for a, box in zip(record["annotations"], [(1, 2, 11, 12)] * 4, strict=True):
            a["segmentation"] = rle(*box)
        geometry = [T.RandomCrop("relative_range", (0.5, 0.5))]  # with polygons it needs shapely
    else:
        geometry = []
    augmentations = [
        T.RandomBrightness(0.5, 1.5),
        *geometry,
        T.ResizeShortestEdge((30, 70), max_size=90, sample_style="range"),
        T.RandomFlip(),
    ]
    before = copy.deepcopy(record)
    for seed in range(10):
        results = []
        for cls in (DatasetMapper, BoxAwareDatasetMapper):
            np.random.seed(seed)
            results.append(mapper_of(*augmentations, cls=cls, **KINDS[kind])(record))
            assert record == before
        assert_same(*results)
    assert "sem_seg" in results[1]


def test_inference_is_detectron2s(record):
    results = [
        mapper_of(T.Resize((20, 30)), cls=cls, is_train=False)(record)
        for cls in (DatasetMapper, BoxAwareDatasetMapper)
    ]
    assert_same(*results)
    assert "instances" not in results[1] and "annotations" not in results[1]
    spy = Spy()
    mapper_of(spy, is_train=False)(record)
    assert spy.boxes is None


def test_augmentations_get_the_boxes(record):
    spy, later = Spy(), Spy()
    mapper = mapper_of(spy, T.Resize((2 * H, W)), crop(0, 0, 30, 80, (W, 2 * H)), later)
    mapper(record)
    assert spy.boxes.dtype == np.float32
    # without the crowd
    assert spy.boxes.tolist() == [[1, 2, 11, 12], [20, 10, 50, 38], [30, 30, 30, 35]]
    # after a crop that keeps the first center only
    assert later.boxes.tolist() == [[1, 4, 11, 24]]
    # nothing of the image is left in the mapper
    assert isinstance(mapper.augmentations, T.AugmentationList)


def test_difficult_annotations_can_be_left_out(record):
    before = copy.deepcopy(record)
    for ignore, boxes in ((False, [[1, 2, 11, 12], [20, 10, 50, 38]]), (True, [[1, 2, 11, 12]])):
        spy = Spy()
        instances = mapper_of(spy, ignore_difficult=ignore)(record)["instances"]
        assert instances.gt_boxes.tensor.tolist() == boxes
        # the box without area is dropped at the end only
        assert spy.boxes.tolist() == [*boxes, [30, 30, 30, 35]]
    assert record == before


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask", "rle"])
def test_a_crop_drops_what_has_its_center_outside(mask_format, record):
    if mask_format == "rle":
        for a in record["annotations"]:
            x, y, w, h = a["bbox"]
            a["segmentation"] = rle(x, y, x + w, y + h)
    arguments = {**ALL, "instance_mask_format": mask_format.replace("rle", "bitmask")}
    # centers (6, 7), (35, 24): the first box is cut in half, 10 columns of the second are visible
    mapper = mapper_of(crop(6, 0, 24, H), T.HFlipTransform(24), T.Resize((H, 48)), **arguments)
    assert len(mapper(record)["instances"]) == 0
    mapper = mapper_of(crop(5, 0, 25, H), T.HFlipTransform(25), T.Resize((H, 50)), **arguments)
    instances = mapper(record)["instances"]
    assert instances.gt_classes.tolist() == [1]
    # (1, 2, 11, 12) -> (0, 2, 6, 12) -> (19, 2, 25, 12) -> (38, 2, 50, 12)
    assert instances.gt_boxes.tensor.tolist() == [[38, 2, 50, 12]]
    assert instances.gt_masks.get_bounding_boxes().tensor.tolist() == [[38, 2, 50, 12]]
    assert len(instances.gt_keypoints) == 1


def test_a_box_is_clipped_by_its_crop_although_a_canvas_follows(record):
    expand = RandomExpand(prob=1, max_ratio=3)
    for seed in range(5):
        np.random.seed(seed)
        result = mapper_of(crop(5, 0, 25, H), expand, **ALL)(record)
        (box,) = result["instances"].gt_boxes.tensor.tolist()
        (mask,) = result["instances"].gt_masks.get_bounding_boxes().tensor.tolist()
        assert box == mask and (box[2] - box[0], box[3] - box[1]) == (6, 10)


def test_images_without_annotations(record):
    spy = Spy()
    masks = {"use_instance_mask": True, "recompute_boxes": True}
    mapper = mapper_of(spy, MinIoURandomCrop(), ignore_difficult=True, **masks)
    for more in (None, {"iscrowd": 1}, {"difficult": 1}):
        record["annotations"] = [annotation(5, 5, 55, 35, **more)] if more else []
        instances = mapper(record)["instances"]
        assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
        assert spy.boxes.shape == (0, 4)
    del record["annotations"]
    assert "instances" not in mapper(record)
    assert spy.boxes.shape == (0, 4)


def test_detectron2s_own_mapper_is_told_apart(record):
    with pytest.raises(ValueError, match="MinIoURandomCrop needs BoxAwareDatasetMapper"):
        mapper_of(MinIoURandomCrop(), cls=DatasetMapper)(record)


def test_from_a_yacs_config(record):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    mapper = BoxAwareDatasetMapper(cfg, is_train=True, ignore_difficult=True)
    assert mapper.ignore_difficult and len(mapper(record)["instances"]) == 1
    assert not BoxAwareDatasetMapper(cfg, is_train=False).is_train


def test_lazy_config(tmp_path, record):
    config = OmegaConf.create(
        {
            "mapper": LazyCall(BoxAwareDatasetMapper)(
                is_train=True,
                ignore_difficult=False,
                augmentations=[
                    LazyCall(RandomExpand)(fill=(1.0, 2.0, 3.0), prob=1.0),
                    LazyCall(MinIoURandomCrop)(min_ious=(0.1, 0.3)),
                    LazyCall(T.Resize)(shape=(30, 30)),
                    LazyCall(T.RandomFlip)(),
                    LazyCall(PhotometricDistortion)(image_format="${...image_format}"),
                ],
                image_format="BGR",
            )
        }
    )
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    loaded = LazyConfig.load(str(tmp_path / "config.yaml"))
    LazyConfig.apply_overrides(loaded, ["mapper.ignore_difficult=True"])
    mapper = instantiate(loaded.mapper)
    assert mapper.ignore_difficult
    expand, min_iou, _, _, photometric = mapper.augmentations.augs
    assert expand.fill == (1, 2, 3) and min_iou.min_ious == (0.1, 0.3)
    assert photometric.image_format == "BGR"
    # as worker processes that are spawned get it
    results = []
    for m in (mapper, pickle.loads(pickle.dumps(mapper))):
        np.random.seed(2)
        results.append(m(record))
    assert_same(*results)
    assert results[0]["image"].shape == (3, 30, 30) and results[0]["image"].dtype == torch.uint8
