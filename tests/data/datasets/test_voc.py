import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from omegaconf import ListConfig
from PIL import Image

from iou_balanced.data import register_voc_dir
from iou_balanced.evaluation import VOCDetectionEvaluator

# Real blood cells, kept beside the repository where somebody put them there.
BCCD = Path(__file__).resolve().parents[4] / "shared" / "data" / "bccd"

IMAGES = {
    "x1": [("WBC", (1, 1, 40, 30)), ("RBC", (3, 4, 10, 12), 1)],
    "x2": [("Platelets", (5, 6, 9, 9))],
}
SPLITS = {"train": ["x1"], "val": ["x2"]}


def test_loads_as_detectron2_does(make_voc):
    root = make_voc(IMAGES, SPLITS)
    name = register_voc_dir(root=str(root), split="train")
    assert name == "blood_train"
    # from all xml files, so that train and val agree
    assert MetadataCatalog.get(name).thing_classes == ["Platelets", "RBC", "WBC"]
    assert MetadataCatalog.get(name).evaluator_type == "coco"
    (record,) = DatasetCatalog.get(name)
    assert record == {
        "file_name": str(root / "JPEGImages" / "x1.jpg"),
        "image_id": 1,
        "voc_id": "x1",
        "height": 30,
        "width": 40,
        "annotations": [
            # inclusive and from 1, so (1, 1, 40, 30) is the whole image
            {
                "bbox": [0, 0, 40, 30],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 2,
                "difficult": 0,
            },
            {
                "bbox": [2, 3, 10, 12],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 1,
                "difficult": 1,
            },
        ],
    }


def test_registering_again_is_silent_and_other_arguments_are_an_error(make_voc):
    root = make_voc(IMAGES, SPLITS)
    name = register_voc_dir(root=str(root), split="train")
    assert register_voc_dir(root=f"{root}/", split="train") == name
    with pytest.raises(ValueError, match=r"on_invalid='drop'; this call has on_invalid='error'"):
        register_voc_dir(root=str(root), split="train", on_invalid="error")

    other = make_voc(IMAGES, SPLITS, folder="other/blood")
    with pytest.raises(ValueError, match=f"'{root}'; this call has root='{other}'.*name="):
        register_voc_dir(root=str(other), split="train")
    assert register_voc_dir(root=str(other), split="train", name="b2") == "b2"


def test_name_of_somebody_else_is_an_error(make_voc):
    root = make_voc(IMAGES, SPLITS, folder="coco_2017")
    with pytest.raises(ValueError, match="'coco_2017_train' is registered already, by Detectron2"):
        register_voc_dir(root=str(root), split="train")


def test_registers_again_after_somebody_removed_it(make_voc):
    root = make_voc(IMAGES, SPLITS)
    name = register_voc_dir(root=str(root), split="train")
    DatasetCatalog.remove(name)
    register_voc_dir(root=str(root), split="train", class_names=["RBC", "WBC"])
    assert MetadataCatalog.get(name).thing_classes == ["RBC", "WBC"]


def test_as_a_name_in_a_lazy_config(make_voc):
    root = make_voc(IMAGES, SPLITS)
    call = LazyCall(get_detection_dataset_dicts)(
        names=LazyCall(register_voc_dir)(root=str(root), split="train", class_names=["WBC", "RBC"])
    )
    assert isinstance(call.names.class_names, ListConfig)
    for _ in range(2):
        (record,) = instantiate(call)
        assert [a["category_id"] for a in record["annotations"]] == [0, 1]


def test_missing_folders_and_splits_say_what_was_looked_for(make_voc, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder.*ImageSets/Main"):
        register_voc_dir(root=str(tmp_path / "nowhere"), split="train")
    root = make_voc(IMAGES, SPLITS)
    with pytest.raises(FileNotFoundError, match=r"Main/test.txt does not exist.*'train', 'val'"):
        register_voc_dir(root=str(root), split="test")


def test_bad_class_names(make_voc):
    root = str(make_voc({"x1": []}, {"train": ["x1"]}))
    with pytest.raises(ValueError, match="no classes"):
        register_voc_dir(root=root, split="train")
    with pytest.raises(ValueError, match="must be a list of names, but got the text 'RBC'"):
        register_voc_dir(root=root, split="train", class_names="RBC")
    with pytest.raises(ValueError, match=r"\['RBC'\] more than once"):
        register_voc_dir(root=root, split="train", class_names=["RBC", "RBC"])


def test_findings_name_file_box_and_coordinates(make_voc, caplog):
    images = {
        "bad": [("RBC", (5, 5, 5, 9)), ("Horse", (1, 1, 9, 9)), ("RBC", (0, 5, 9, 9))],
        "torn": [],
        "blind": [("RBC", (1, 1, 9, 9))],
        "good": [("RBC", ("oops", 1, 9, 9)), ("RBC", (1, 1, 9, 9))],
    }
    root = make_voc(images, {"train": [*images, "listed_only"]})
    (root / "Annotations" / "torn.xml").write_text("<annotation><obj")
    (root / "JPEGImages" / "blind.jpg").unlink()
    kwargs = {"root": str(root), "split": "train", "class_names": ["RBC"]}
    with caplog.at_level(logging.WARNING):
        dicts = DatasetCatalog.get(register_voc_dir(**kwargs))
    boxes = {d["voc_id"]: [a["bbox"] for a in d["annotations"]] for d in dicts}
    # (0, 5, 9, 9) begins at -1 in our coordinates
    assert boxes == {"bad": [[0, 4, 9, 9]], "good": [[0, 0, 9, 9]]}

    (summary,) = [r.getMessage() for r in caplog.records if r.name.startswith("iou_balanced")]
    for part in (
        "bad.xml, box 0: (4, 4, 5, 9)",
        "bad.xml, box 1: class 'Horse', (0, 0, 9, 9)",
        "bad.xml, box 2: (-1, 4, 9, 9), image 40 x 30",
        "good.xml, box 0: [nan, 0.0, 9.0, 9.0]",
        "torn.xml: ",
        "listed_only.xml: does not exist",
        "blind.xml: JPEGImages has neither blind.jpg",
    ):
        assert part in summary
    name = register_voc_dir(**kwargs, name="strict", on_invalid="error")
    with pytest.raises(ValueError, match=r"(?s)bad.xml, box 0: \(4, 4, 5, 9\).*on_invalid='drop'"):
        DatasetCatalog.get(name)


def test_takes_the_real_size_of_the_image(make_voc, caplog):
    root = make_voc(IMAGES, SPLITS, size=(0, 0))
    with caplog.at_level(logging.WARNING):
        (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="train"))
    assert (record["width"], record["height"]) == (40, 30)
    assert "x1.xml: 0 x 0, but x1.jpg is 40 x 30" in caplog.text

    # Detectron2 turns images as their EXIF data say: 6 is a quarter turn.
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (30, 40)).save(root / "JPEGImages" / "x2.jpg", exif=exif)
    (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="val"))
    assert (record["width"], record["height"]) == (40, 30)


def test_image_by_stem_then_by_filename(make_voc):
    root = make_voc(IMAGES, SPLITS, filename="C:\\pictures\\scan.png")
    assert register_and_file(root, "by_stem") == "x1.jpg"
    (root / "JPEGImages" / "x1.jpg").unlink()
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "scan.png")
    assert register_and_file(root, "by_filename") == "scan.png"


def register_and_file(root, name):
    (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="train", name=name))
    return Path(record["file_name"]).name


def test_coco_evaluation_takes_it(make_voc, tmp_path):
    name = register_voc_dir(root=str(make_voc(IMAGES, SPLITS)), split="train")
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "out"))
    assert [c["name"] for c in evaluator._coco_api.cats.values()] == ["Platelets", "RBC", "WBC"]
    assert list(evaluator._coco_api.imgs) == [1]


@pytest.mark.skipif(not BCCD.is_dir(), reason="no shared/data/bccd beside the repository")
def test_blood_cells(caplog):
    names = [register_voc_dir(root=str(BCCD), split=s) for s in ("train", "val", "test")]
    assert names == ["bccd_train", "bccd_val", "bccd_test"]
    with caplog.at_level(logging.WARNING):
        dicts = [DatasetCatalog.get(name) for name in names]
    assert [len(d) for d in dicts] == [205, 87, 72]
    # 4888 boxes in the files
    assert sum(len(r["annotations"]) for d in dicts for r in d) == 4886
    for name in names:
        assert MetadataCatalog.get(name).thing_classes == ["Platelets", "RBC", "WBC"]
    summaries = [r.getMessage() for r in caplog.records if r.name.startswith("iou_balanced")]
    # xmin = xmax = 181 and ymin = ymax = 329 in the file: a click, and another such one in val
    assert len(summaries) == 2
    assert "'bccd_train', number of findings: 1\n" in summaries[0]
    assert "BloodImage_00343.xml, box 3: (180, 328, 181, 329)" in summaries[0]
    assert "'bccd_val', number of findings: 1\n" in summaries[1]
    assert "BloodImage_00338.xml, box 12: (503, 336, 504, 337)" in summaries[1]


@pytest.mark.skipif(not BCCD.is_dir(), reason="no shared/data/bccd beside the repository")
def test_blood_cells_by_the_challenges_metrics():
    # All that is there is found, but for the red cells of every second image.
    evaluator = VOCDetectionEvaluator(register_voc_dir(root=str(BCCD), split="test"))
    images = DatasetCatalog.get("bccd_test")
    red = sum(a["category_id"] == 1 for x in images for a in x["annotations"])
    found_red = 0
    for x in images:
        found = [a for a in x["annotations"] if a["category_id"] != 1 or x["image_id"] % 2]
        found_red += sum(a["category_id"] == 1 for a in found)
        instances = Instances((x["height"], x["width"]))
        instances.pred_boxes = Boxes(torch.tensor([a["bbox"] for a in found]).reshape(-1, 4))
        instances.scores = torch.full((len(found),), 0.5)
        instances.pred_classes = torch.tensor([a["category_id"] for a in found]).long()
        evaluator.process([x], [{"instances": instances}])
    results = evaluator.evaluate()["bbox_area"]
    assert 0.3 < found_red / red < 0.7
    assert results["AP-Platelets"] == results["AP-WBC"] == pytest.approx(100)
    assert results["AP-RBC"] == pytest.approx(100 * found_red / red)
    assert results["AP90"] == pytest.approx((200 + results["AP-RBC"]) / 3)
