"""Which configs Tables 1, 5, 6 and 7 of arXiv 1908.05641 need, and the settings of each."""

import itertools
import re

import pytest
from detectron2.config import instantiate

from iou_balanced.data import (
    BoxAwareDatasetMapper,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomExpand,
)
from iou_balanced.reproduction import papers

from .test_configs import FILES, load, loss_node

# Files without ending -> lr, weight decay, batch. The losses are those of the papers' records.
SETTINGS = {
    "COCO/ssd300": (2e-3, 5e-4, 64),
    "COCO/ssd512": (2e-3, 5e-4, 64),
    "COCO/foveabox_R_50_FPN_1x": (0.01, 1e-4, 16),
    "COCO/faster_rcnn_R_50_FPN_1x_600": (0.02, 1e-4, 16),
    "COCO/faster_rcnn_R_50_FPN_1x": (0.02, 1e-4, 16),
    "COCO/faster_rcnn_R_101_FPN_1x": (0.02, 1e-4, 16),
    "VOC/ssd300": (1e-3, 5e-4, 64),
    "VOC/ssd512": (1e-3, 5e-4, 64),
    "VOC/retinanet_R_50_FPN_1x": (0.01, 1e-4, 16),
    "VOC/retinanet_R_101_FPN_1x": (0.01, 1e-4, 16),
    "VOC/retinanet_X_101_32x4d_FPN_1x": (0.01, 1e-4, 16),
    "Cityscapes/retinanet_R_50_FPN": (0.01, 1e-4, 8),
    "Cityscapes/retinanet_R_101_FPN": (0.01, 1e-4, 8),
}
ROWS = {row.config: row.losses for row in papers()["iou"].rows if not row.overrides}
NO_TABLE = ("Digits/", "Photos/")
OF_OTHER_TESTS = ("COCO/retinanet", "COCO/fcos", "COCO/centernet", "COCO_LT/")
LOSSES = re.compile(r"_iou_balanced(?:_(cls|loc))?$")
OTHERS = [
    file.removesuffix(".py")
    for file in FILES
    if not file.startswith((*NO_TABLE, *OF_OTHER_TESTS)) and "_test_dev" not in file
]
SSD_SIZES = {
    "COCO/ssd300": [21, 45, 99, 153, 207, 261, 315],
    "COCO/ssd512": [20, 51, 133, 215, 296, 378, 460, 542],
    "VOC/ssd300": [30, 60, 111, 162, 213, 264, 315],
    "VOC/ssd512": [35, 76, 153, 230, 307, 384, 460, 537],
}


def test_the_configs_are_all_there():
    balanced = {f"{name}_iou_balanced" for name in SETTINGS} & set(ROWS)
    # All but Table 1's Faster R-CNN, which is a baseline only.
    assert len(balanced) == len(SETTINGS) - 2
    table_7 = {f"COCO/faster_rcnn_R_50_FPN_1x_600_iou_balanced_{x}" for x in ("cls", "loc")}
    assert set(OTHERS) == set(SETTINGS) | balanced | table_7
    # Table 1 is of test-dev.
    for name in ("ssd300", "ssd512", "foveabox_R_50_FPN_1x"):
        assert f"COCO/{name}_iou_balanced_test_dev.py" in FILES


@pytest.mark.parametrize("name", OTHERS)
def test_settings(name):
    baseline, found = LOSSES.sub("", name), LOSSES.search(name)
    lr, decay, batch = SETTINGS[baseline]
    plain, both = ROWS[baseline], ROWS.get(f"{baseline}_iou_balanced")
    cfg = load(f"{name}.py")
    optimizer = cfg.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (lr, 0.9, decay)
    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == batch

    losses = loss_node(cfg.model)
    cls_loss, box_loss = losses.cls_loss, losses.box_loss
    has_cls, has_loc = (bool(found) and found[1] in (None, which) for which in ("cls", "loc"))
    assert cls_loss.get("eta") == (both["cls_loss"]["eta"] if has_cls else None)
    assert (box_loss.get("lam"), box_loss.get("weight")) == (
        (1.5, both["box_loss"]["weight"]) if has_loc else (None,) * 2
    )
    assert box_loss.beta == plain["box_loss"]["beta"] and not box_loss.get("normalize")
    for key in ("alpha", "gamma"):  # of focal loss; softmax has none
        assert cls_loss.get(key) == plain["cls_loss"].get(key)


@pytest.mark.parametrize("name", [name for name in OTHERS if "/ssd" in name])
def test_ssd(name):
    cfg = load(f"{name}.py")
    size = int(re.search(r"ssd(\d+)", name)[1])
    assert cfg.train.init_checkpoint == "torchvision://vgg16/IMAGENET1K_FEATURES"
    assert cfg.model.input_format == "RGB" and list(cfg.model.pixel_std) == [1.0] * 3
    assert cfg.model.pixel_mean == pytest.approx([123.0, 117.0, 104.0], abs=0.01)

    model = instantiate(cfg.model)
    sizes = SSD_SIZES[LOSSES.sub("", name)]
    pairs = list(itertools.pairwise(sizes))
    assert [tuple(x) for x in model.anchor_generator.min_max_sizes] == pairs
    assert (
        model.anchor_generator.num_anchors
        == {
            300: [4, 6, 6, 6, 4, 4],
            512: [4, 6, 6, 6, 6, 4, 4],
        }[size]
    )
    assert (model.test_score_thresh, model.test_nms_thresh) == (0.02, 0.45)
    assert (model.max_detections_per_image, model.hard_negative_ratio) == (200, 3.0)
    assert (model.match_iou_thresh, model.cls_loss.reduction) == (0.5, "none")
    assert tuple(model.box2box_transform.weights) == (10, 10, 5, 5)

    train, test = (cfg.dataloader[split].mapper for split in ("train", "test"))
    assert train._target_ is BoxAwareDatasetMapper and train.image_format == "RGB"
    expand, crop, resize, flip, distort = map(instantiate, train.augmentations)
    assert isinstance(expand, RandomExpand) and (expand.max_ratio, expand.prob) == (4.0, 0.5)
    assert isinstance(crop, MinIoURandomCrop)
    assert tuple(crop.min_ious) == (0.1, 0.3, 0.5, 0.7, 0.9) and crop.min_crop_size == 0.3
    assert flip.prob == 0.5 and flip.horizontal
    assert isinstance(distort, PhotometricDistortion)
    (test_resize,) = map(instantiate, test.augmentations)
    assert resize.shape == test_resize.shape == (size, size)


@pytest.mark.parametrize("name", [name for name in OTHERS if "foveabox" in name])
def test_foveabox(name):
    cfg = load(f"{name}.py")
    model = cfg.model
    assert list(model.base_sizes) == [16, 32, 64, 128, 256] and model.sigma == 0.4
    ranges = [(1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)]
    assert [tuple(x) for x in model.scale_ranges] == ranges
    assert (model.test_score_thresh, model.test_nms_thresh) == (0.05, 0.5)
    assert cfg.train.init_checkpoint == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    for split in ("train", "test"):
        resize = instantiate(cfg.dataloader[split].mapper.augmentations[0])
        assert (resize.short_edge_length, resize.max_size) == ((800, 800), 1333)


@pytest.mark.parametrize("name", [name for name in OTHERS if "/retinanet" in name])
def test_retinanet_on_other_data(name):
    cfg = load(f"{name}.py")
    train, test = (
        instantiate(cfg.dataloader[split].mapper.augmentations[0]) for split in ("train", "test")
    )
    if name.startswith("VOC/"):
        assert cfg.model.num_classes == 20
        assert (train.short_edge_length, train.max_size) == ((600, 600), 1000)
        assert (test.short_edge_length, test.max_size) == ((600, 600), 1000)
        assert list(cfg.datasets.train.years) == [2007, 2012]
        assert list(cfg.datasets.test.years) == [2007]
        assert (cfg.datasets.train.split, cfg.datasets.test.split) == ("trainval", "test")
    else:
        assert cfg.model.num_classes == 8
        assert (train.short_edge_length, train.max_size) == ((800, 1024), 2048)
        assert (test.short_edge_length, test.max_size) == ((1024, 1024), 2048)
        assert cfg.train.init_classes == "coco_2017_train"
        assert re.fullmatch(
            r"./output/retinanet_R_\d+_FPN_1x/model_final.pth", cfg.train.init_checkpoint
        )
