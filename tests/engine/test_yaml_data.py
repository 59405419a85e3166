"""Data that cannot be used, with yaml configs."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from iou_balanced.data import register_coco_json
from iou_balanced.data.datasets import registration
from iou_balanced.engine import BalancedDefaultTrainer, UserError
from iou_balanced.formats.image_files import ImageError

from .yaml_photos import train


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_cut_off_is_named(yaml_config, photos, workers):
    yaml_config.DATALOADER.NUM_WORKERS = workers
    path = photos[0][3]["file_name"]
    with open(path, "rb+") as file:
        file.truncate(3000)
    with pytest.raises(ImageError) as error:
        train(yaml_config)
    assert str(error.value).startswith(f"image {path} cannot be read (OSError")
    assert "\n" not in str(error.value)


def test_in_the_evaluation_too(yaml_config, photos):
    path = photos[0][3]["file_name"]
    Image.new("RGB", (9, 9)).save(path)
    loader = BalancedDefaultTrainer.build_test_loader(yaml_config, yaml_config.DATASETS.TEST[0])
    with pytest.raises(ImageError, match=r"3\.png.*\(9, 9\).*\(96, 48\).*has a wrong size for"):
        list(loader)


@pytest.mark.parametrize("name", ["BalanceOriented", ""])
def test_no_box_to_train_on(yaml_config, photos, name):
    yaml_config.MODEL.CLASS_BALANCE.NAME = name
    yaml_config.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    for record in photos[0]:
        record["annotations"] = [a for a in record["annotations"] if a["iscrowd"]]
    with pytest.raises(UserError, match="no image of the training set has a box to train on"):
        BalancedDefaultTrainer.build_train_loader(yaml_config)


def test_masks_that_are_not_read(yaml_config, photos, tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "0.png", "width": 96, "height": 48}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    name = register_coco_json(
        name="no_masks", json_file=str(tmp_path / "a.json"), image_root=str(tmp_path)
    )
    yaml_config.DATASETS.TRAIN = (name,)
    yaml_config.MODEL.MASK_ON = True
    try:
        with pytest.raises(UserError, match=r"no_masks does not read: .*\(masks=True\)"):
            BalancedDefaultTrainer.build_train_loader(yaml_config)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        registration._ARGUMENTS.pop(name)
