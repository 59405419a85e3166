"""Data that cannot be used ends a run in one line that names it, wherever the run is."""

import json

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from PIL import Image

from iou_balanced.data import register_coco_json
from iou_balanced.data.datasets import image_checks, registration
from iou_balanced.engine import UserError, main
from iou_balanced.engine.class_balance import count_classes
from iou_balanced.engine.loader import prepare_masks

from .helpers import make_args

SIDE = 64


@pytest.fixture(autouse=True)
def clean_catalogs():
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
        registration._ARGUMENTS.pop(name, None)


@pytest.fixture
def photos(tmp_path):
    """Four noisy images with a box each, and the arguments to train and evaluate on them."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i in range(4):
        Image.effect_noise((SIDE, SIDE), 90).save(tmp_path / "images" / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE})
        box = {"bbox": [9, 9, 40, 40], "area": 1600, "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 1, **box})
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    return tmp_path, data


def run(photos, *more, eval_only=False, workers=0):
    folder, data = photos
    (folder / "a.json").write_text(json.dumps(data))
    opts = [
        f"datasets.{part}.{key}={value}"
        for part in ("train", "test")
        for key, value in {
            "_target_": "iou_balanced.data.register_coco_json",
            "name": f"{part}_{folder.name}",
            "json_file": folder / "a.json",
            "image_root": folder / "images",
        }.items()
    ]
    opts += [
        "model.num_classes=1",
        "train.device=cpu",
        "train.max_iter=6",
        "train.eval_period=0",
        "train.best_checkpoint.metric=null",
        "dataloader.train.total_batch_size=2",
        f"dataloader.train.num_workers={workers}",
        f"dataloader.test.num_workers={workers}",
        f"train.output_dir={folder}/out",
    ]
    args = make_args(eval_only=eval_only)
    args.opts = [*opts, *more]
    return main(args)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_cut_off_ends_the_training_by_name(photos, workers):
    cut(photos[0] / "images" / "2.jpg")
    with pytest.raises(UserError, match=r"images/2\.jpg cannot be read \(OSError") as error:
        run(photos, workers=workers)
    one_line(error)


def test_in_the_evaluation_after_the_training(photos):
    # Two data sets: the training's images are whole.
    folder, data = photos
    (folder / "other").mkdir()
    Image.effect_noise((SIDE, SIDE), 90).save(folder / "other" / "0.jpg")
    cut(folder / "other" / "0.jpg")
    test = {**data, "images": data["images"][:1], "annotations": data["annotations"][:1]}
    (folder / "test.json").write_text(json.dumps(test))
    more = [
        f"datasets.test.json_file={folder}/test.json",
        f"datasets.test.image_root={folder}/other",
        "train.max_iter=1",
        "train.eval_period=1",
    ]
    with pytest.raises(UserError, match=r"other/0\.jpg cannot be read") as error:
        run(photos, *more)
    one_line(error)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("1.jpg", (32, 32), r"images/1\.jpg.*\(32, 32\).*\(64, 64\).*wrong size for"),
        ("1.jpg", None, r"images/1\.jpg has more than 8 bits .*pixel_range="),
    ],
)
def test_images_that_the_loader_did_not_look_at(photos, monkeypatch, name, size, message):
    monkeypatch.setattr(image_checks, "_NUM_HEADERS", 1)
    path = photos[0] / "images" / name
    if size is None:
        Image.new("I;16", (SIDE, SIDE)).save(path.with_suffix(".png"))
        path.with_suffix(".png").rename(path)
    else:
        Image.new("RGB", size).save(path)
    with pytest.raises(UserError, match=message) as error:
        run(photos)
    one_line(error)


def test_wide_images_are_trained_on_where_a_range_is_given(photos):
    folder, data = photos
    values = np.random.default_rng(0).integers(1000, 5000, (SIDE, SIDE), dtype=np.uint16)
    for image in data["images"]:
        image["file_name"] = image["file_name"].replace("jpg", "png")
        Image.fromarray(values).save(folder / "images" / image["file_name"])
    ranges = [f"datasets.{part}.pixel_range=[1000,5000]" for part in ("train", "test")]
    run(photos, *ranges, "train.max_iter=1")
    assert (folder / "out" / "model_final.pth").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"iscrowd": 1},
            "no image of the training set has a box to train on. Crowd regions do not",
        ),
        ({"bbox": [9, 9, 0, 5]}, "no usable box left: 4 x box without area"),
        ({"bbox": [0.1, 0.1, 0.5, 0.5]}, "4 of 4 boxes are smaller than a pixel"),
    ],
)
def test_no_box_left_has_its_cause(photos, change, message):
    for annotation in photos[1]["annotations"]:
        annotation.update(change)
    with pytest.raises(UserError, match=message):
        run(photos)


def test_a_file_without_any_box(photos):
    photos[1]["annotations"].clear()
    with pytest.raises(UserError, match="no image of the training set has a box to train on"):
        run(photos)


def test_a_file_that_contradicts_itself(photos):
    photos[1]["images"][1]["id"] = 0
    with pytest.raises(UserError, match=r"image id 0 twice, for 0\.jpg and for 1\.jpg"):
        run(photos)


@pytest.mark.parametrize("wanted", [True, False])
def test_masks_are_read_where_the_mapper_wants_them(wanted):
    names = L(register_coco_json)(name="a", json_file="a.json", image_root="images")
    cfg = OmegaConf.create(
        {
            "dataloader": {
                "train": {"mapper": {"use_instance_mask": wanted}, "dataset": {"names": names}},
                "test": {"dataset": {"names": "coco_2017_val"}},
            }
        },
        flags={"allow_objects": True},
    )
    prepare_masks(cfg)
    assert cfg.dataloader.train.dataset.names.get("masks", False) is wanted


def test_only_difficult_objects():
    names = "iou_balanced_test_difficult"
    DatasetCatalog.register(names, list)
    MetadataCatalog.get(names).set(thing_classes=["cat"])
    cfg = OmegaConf.create(
        {
            "dataloader": {
                "train": {"mapper": {"ignore_difficult": True}, "dataset": {"names": names}}
            }
        }
    )
    records = [{"file_name": "a", "annotations": [{"category_id": 0, "difficult": 1}]}]
    with pytest.raises(UserError, match=r"all are difficult or crowds and .*ignore_difficult=True"):
        count_classes(cfg, records)
    records[0]["annotations"][0]["difficult"] = 0
    assert count_classes(cfg, records).instances == (1,)
