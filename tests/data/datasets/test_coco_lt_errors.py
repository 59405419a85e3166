"""COCO-LT: missing files, bad arguments and sources; loading; the config of its loaders."""

import re
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from iou_balanced.data import COCO_LT_PROFILE, ClassCounts, register_coco_lt
from iou_balanced.data.datasets.coco_lt_profile import coco_lt_targets

from .coco_lt_tree import SCALE, small_coco, write_coco

CONFIGS = Path(__file__).resolve().parents[3] / "configs/common/data"


@pytest.fixture(scope="module")
def source():
    return small_coco()


@pytest.fixture
def root(tmp_path, source):
    write_coco(tmp_path / "coco", source)
    return tmp_path / "coco"


def test_loaded(root, source):
    name = register_coco_lt(split="train", root=f"{root}/", scale=SCALE)
    assert name == f"coco_lt_train_scale{SCALE}"
    meta = MetadataCatalog.get(name)
    coco = MetadataCatalog.get("coco_2017_val")
    assert meta.thing_classes == coco.thing_classes and meta.evaluator_type == "coco"
    assert meta.thing_dataset_id_to_contiguous_id == coco.thing_dataset_id_to_contiguous_id
    dicts = DatasetCatalog.get(name)
    assert all(d["file_name"].startswith(f"{root}/train2017/") for d in dicts)
    counts = dict.fromkeys(COCO_LT_PROFILE, 0)
    for d in dicts:
        assert any(not a["iscrowd"] for a in d["annotations"])
        for a in d["annotations"]:
            counts[meta.thing_classes[a["category_id"]]] += not a["iscrowd"]
    # Persons: 200 and 10; of the other 19 classes that stay whole 10.
    expected = {c: 10 if t is None else t for c, t in coco_lt_targets(SCALE).items()}
    assert counts == {**expected, "person": 210}


def test_validation_is_coco_val2017(root, source):
    with pytest.raises(FileNotFoundError, match=r"Looked for\n  .*/instances_val2017\.json\nCOCO"):
        register_coco_lt(split="val", root=str(root))
    path = write_coco(root, source, "instances_val2017.json")
    name = register_coco_lt(split="val", root=str(root))
    assert name == "coco_lt_val" and MetadataCatalog.get(name).json_file == str(path)
    assert MetadataCatalog.get(name).image_root == str(root / "val2017")
    assert len(DatasetCatalog.get(name)) == len(source["images"])


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path, monkeypatch):
    root = tmp_path / "coco"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Looked for\n") as error:
        register_coco_lt(split="train")
    assert f"\n  {root}/train2017/*.jpg\n" in str(error.value)
    (root / "train2017").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="Looked for any of\n") as error:
        register_coco_lt(split="train")
    message = str(error.value)
    for part in (
        f"\n  {root}/annotations/train_coco2017_LT_sampled.json\n",
        f"\n  {root}/annotations/train_coco2017_sampled_1.json\n",
        f"\n  {root}/annotations/instances_train2017.json\n",
        "http://images.cocodataset.org",
        "annotations/annotations_trainval2017.zip",
        "https://github.com/twangnh/SimCal",
        f"unpack them in {root}.",
        "$DETECTRON2_DATASETS",
    ):
        assert part in message, part
    # With a seed the published files would not do.
    with pytest.raises(
        FileNotFoundError, match=r"Looked for\n  .*/instances_train2017\.json\nCOCO"
    ):
        register_coco_lt(split="train", seed=1)
    with pytest.raises(FileNotFoundError, match=f"Looked for\n  {tmp_path}/mine.json\nCOCO"):
        register_coco_lt(split="train", json_file=f"{tmp_path}/mine.json")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "test"}, r"`split` to be one of \('train', 'val'\), but got 'test'"),
        ({"seed": -1}, "`seed` to be an integer from 0 on, but got -1"),
        ({"seed": True}, "`seed` to be an integer from 0 on, but got True"),
        ({"seed": 0.5}, "`seed` to be an integer from 0 on, but got 0.5"),
        ({"scale": 0}, r"`scale` to be a number in \(0, 1\], but got 0"),
        ({"scale": 1.5}, r"`scale` to be a number in \(0, 1\], but got 1.5"),
        ({"scale": "all"}, r"`scale` to be a number in \(0, 1\], but got 'all'"),
        ({"scale": float("nan")}, r"`scale` to be a number in \(0, 1\], but got nan"),
        ({"split": "val", "seed": 1}, "`seed` for split 'train' only, but got split 'val'"),
        ({"json_file": "a.json", "seed": 1}, "either `json_file`.* but got `json_file`, `seed`"),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=f"Expected .*{message}"):
        register_coco_lt(**{"split": "train", "root": str(root), **arguments})


def test_too_few_instances(root):
    with pytest.raises(ValueError, match="too few instances") as error:
        register_coco_lt(split="train", root=str(root), seed=0)
    message = str(error.value)
    assert message.startswith(f"{root}/annotations/instances_train2017.json is not the whole of")
    assert "'cow' has 143 and should have 7079, " in message and "'person'" not in message
    assert "scale=" in message
    assert not list((root / "iou_balanced").glob("*.json"))


def without(source, name):
    [category] = [c["id"] for c in source["categories"] if c["name"] == name]
    annotations = [a for a in source["annotations"] if a["category_id"] != category]
    return {**source, "annotations": annotations}


def changed(source, **values):
    first, *rest = source["annotations"]
    return {**source, "annotations": [{**first, **values}, *rest]}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: without(s, "person"), "'person' has 0 and should have 1"),
        (lambda s: without(s, "toaster"), "'toaster' has 0 and should have 1"),
        (lambda s: changed(s, image_id=-3), r"annotation id \d+: unknown image_id -3"),
        (lambda s: changed(s, category_id=12), r"annotation id \d+: unknown category_id 12"),
        (lambda s: changed(s, id=s["annotations"][1]["id"]), "some occur twice"),
        (lambda s: changed(s, id="seven"), "is not COCO JSON: "),
        (lambda s: {**s, "categories": s["categories"][1:]}, "must have the 80 classes of COCO"),
        (lambda s: {"images": []}, "is not COCO JSON: .* lacks 'categories'"),
        (lambda s: {**s, "annotations": None}, "is not COCO JSON: "),
    ],
)
def test_bad_sources(root, source, change, message):
    path = write_coco(root, change(source))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        register_coco_lt(split="train", root=str(root), scale=SCALE)


def test_a_source_that_is_no_json(root):
    (root / "annotations/instances_train2017.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"instances_train2017\.json is not JSON: "):
        register_coco_lt(split="train", root=str(root), scale=SCALE)


def test_the_config(root, source, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root.parent))
    write_coco(root, source, "instances_val2017.json")
    cfg = LazyConfig.load(str(CONFIGS / "coco_lt.py"))
    cfg.datasets.train.scale = SCALE
    assert instantiate(cfg.dataloader.train.dataset.names) == f"coco_lt_train_scale{SCALE}"
    assert instantiate(cfg.dataloader.test.dataset.names) == "coco_lt_val"
    assert instantiate(cfg.dataloader.evaluator.dataset_name) == "coco_lt_val"
    train = instantiate(cfg.dataloader.train.dataset)
    assert 200 < len(train) < len(source["images"]) - 20
    counts = ClassCounts.from_dicts(train, list(COCO_LT_PROFILE), name="train")
    assert dict(zip(COCO_LT_PROFILE, counts.instances, strict=True))["cow"] == 71

    # COCO's loaders but for the names
    coco = LazyConfig.load(str(CONFIGS / "coco.py"))
    for config in (cfg, coco):
        config.datasets = {"train": "a", "test": "b"}
    plain = [OmegaConf.to_container(c, resolve=True) for c in (cfg, coco)]
    assert plain[0] == plain[1]

    cfg = LazyConfig.load(str(CONFIGS / "coco_lt.py"))
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.dataloader.train.dataset.names.split == "train"
