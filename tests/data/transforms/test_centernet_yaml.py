"""CenterNet's images, for users of yaml files."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from iou_balanced.data import centernet_augmentations
from iou_balanced.modeling import add_centernet_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def config(*overrides):
    cfg = get_cfg()
    add_centernet_config(cfg)
    cfg.merge_from_list(["INPUT.FORMAT", "RGB", *overrides])
    return cfg


def settings(augmentations):
    return [(type(x), vars(x)) for x in augmentations]


@pytest.mark.parametrize("name, canvas", [("MNV2", "fit"), ("R_18", "pad")])
def test_those_of_the_lazy_configs(name, canvas):
    cfg = config("MODEL.CENTERNET.CANVAS", canvas)
    lazy = LazyConfig.load(str(CONFIGS / f"COCO/centernet_{name}_140e.py"))
    for is_train, node in [(True, lazy.dataloader.train), (False, lazy.dataloader.test)]:
        augmentations = centernet_augmentations(cfg, is_train)
        ours = DatasetMapper(cfg, is_train=is_train, augmentations=augmentations)
        theirs = instantiate(node.mapper)
        assert settings(ours.augmentations.augs) == settings(theirs.augmentations.augs)
        assert ours.image_format == theirs.image_format and ours.is_train == theirs.is_train


def test_the_configs_values_arrive():
    cfg = config(
        *("MODEL.CENTERNET.CROP_SIZE", (192, 256), "MODEL.CENTERNET.FIT_SIZE", (128, 96)),
        *("INPUT.FORMAT", "BGR", "INPUT.RANDOM_FLIP", "vertical"),
    )
    crop, flip, jitter = centernet_augmentations(cfg)
    assert crop.size == (192, 256) and jitter.image_format == "BGR"
    assert isinstance(flip, T.RandomFlip) and flip.vertical and not flip.horizontal
    (canvas,) = centernet_augmentations(cfg, is_train=False)
    assert canvas.size == (128, 96)
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(centernet_augmentations(cfg)) == 2


def test_without_a_canvas_they_are_detectron2s():
    cfg = config("MODEL.CENTERNET.CANVAS", "", "INPUT.CROP.ENABLED", True)
    for is_train in (True, False):
        stock = DatasetMapper(cfg, is_train=is_train).augmentations.augs
        assert repr(centernet_augmentations(cfg, is_train)) == repr(stock)
    crop, *_ = centernet_augmentations(cfg)
    assert isinstance(crop, T.RandomCrop)


def test_keys_are_missing():
    with pytest.raises(ValueError, match=r"call iou_balanced\.modeling\.add_centernet_config"):
        centernet_augmentations(get_cfg())
