"""The official layout of PASCAL VOC, made small."""

import logging

import pytest
from detectron2.config import LazyCall, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode

from iou_balanced.data import VOC_CLASSES, register_voc, register_voc_dir

from ...voc_files import write_voc

IMAGES_2007 = {
    "000005": [("chair", (1, 1, 120, 90)), ("chair", (5, 6, 70, 80), 1)],
    "000007": [("car", (41, 50, 100, 90), 1)],
    "000001": [("dog", (8, 12, 52, 71)), ("person", (30, 30, 30, 40))],
}
IMAGES_2012 = {
    "2007_000027": [("person", (74, 1, 112, 62))],
    "2008_000002": [("tvmonitor", (34, 11, 48, 83)), ("tvmonitor", (4, 11, 18, 83), 1)],
}
# As VOC2011 and 2012 have it: actions and parts inside of the object, its name behind them, a
# coordinate that is no whole number, and no word about difficulty.
PARTS = """
<object>
    <actions><other>1</other><name>running</name></actions>
    <part><name>head</name><bndbox><xmin>50</xmin><ymin>20</ymin><xmax>60</xmax><ymax>29</ymax>
    </bndbox></part>
    <bndbox><xmax>88</xmax><xmin>45.70000076293945</xmin><ymax>85</ymax><ymin>10</ymin></bndbox>
    <name>person</name>
</object>"""


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """$DETECTRON2_DATASETS with VOC2007 and VOCdevkit/VOC2012."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_voc(
        tmp_path / "VOC2007", IMAGES_2007, {"trainval": ["000005", "000007"], "test": ["000001"]}
    )
    write_voc(
        tmp_path / "VOCdevkit/VOC2012", IMAGES_2012, {"trainval": IMAGES_2012, "test": IMAGES_2012}
    )
    return tmp_path


def boxes_of(name):
    return {d["voc_id"]: [a["bbox"] for a in d["annotations"]] for d in DatasetCatalog.get(name)}


def test_a_year_is_what_detectron2_loads(voc):
    name = register_voc(years=2007, split="trainval")
    assert name == "voc2007_trainval"
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == VOC_CLASSES == sorted(VOC_CLASSES) and len(VOC_CLASSES) == 20
    assert (metadata.years, metadata.split, metadata.difficult) == ([2007], "trainval", "keep")

    ours = DatasetCatalog.get(name)
    theirs = load_voc_instances(str(voc / "VOC2007"), "trainval", VOC_CLASSES)
    assert [d["image_id"] for d in ours] == [1, 2]
    difficult = [[a.pop("difficult") for a in d["annotations"]] for d in ours]
    assert difficult == [[0, 1], [1]]
    for d in ours:
        d["image_id"] = d.pop("voc_id")
    assert ours == theirs


def test_a_union_of_years(voc):
    name = register_voc(years=[2007, 2012], split="trainval")
    assert name == "voc2007_2012_trainval"
    dicts = DatasetCatalog.get(name)
    assert [d["voc_id"] for d in dicts] == ["000005", "000007", "2007_000027", "2008_000002"]
    assert [d["image_id"] for d in dicts] == [1, 2, 3, 4]  # no two the same
    assert dicts[2]["file_name"] == str(voc / "VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg")
    assert [a["category_id"] for d in dicts for a in d["annotations"]] == [8, 8, 6, 14, 19, 19]

    # The same from a list of names, as Detectron2 makes unions.
    names = [register_voc(years=[year], split="trainval") for year in (2007, 2012)]
    listed = get_detection_dataset_dicts(names)
    assert [d["file_name"] for d in listed] == [d["file_name"] for d in dicts]


def test_difficult_objects_can_be_left_out(voc, caplog):
    name = register_voc(years=[2007, 2012], split="trainval", difficult="drop")
    assert name == "voc2007_2012_trainval_without_difficult"
    with caplog.at_level(logging.INFO, logger="iou_balanced"):
        boxes = boxes_of(name)
    assert boxes == {
        "000005": [[0, 0, 120, 90]],
        "000007": [],
        "2007_000027": [[73, 0, 112, 62]],
        "2008_000002": [[33, 10, 48, 83]],
    }
    assert "1 of 4 images have no other" in caplog.text
    # Detectron2 does not train on an image without objects.
    assert len(get_detection_dataset_dicts(name)) == 3
    # Both can be had at the same time: a training set, and the same images for evaluation.
    assert len(boxes_of(register_voc(years=[2007, 2012], split="trainval"))["000007"]) == 1


def test_difficult_objects_of_any_folder_can_be_left_out(voc):
    kwargs = {"root": str(voc / "VOC2007"), "split": "trainval"}
    assert len(boxes_of(register_voc_dir(**kwargs))["000005"]) == 2
    name = register_voc_dir(**kwargs, difficult="drop")
    assert name == "VOC2007_trainval_without_difficult"
    assert boxes_of(name) == {"000005": [[0, 0, 120, 90]], "000007": []}
    # The classes are those of all files still, so that the ids stay the same.
    assert MetadataCatalog.get(name).thing_classes == ["car", "chair", "dog", "person"]


def test_parts_are_no_objects_and_coordinates_need_not_be_whole(voc):
    write_voc(voc / "VOC2007", {"000009": PARTS}, {"val": ["000009"]})
    (record,) = DatasetCatalog.get(register_voc(years=2007, split="val"))
    assert record["annotations"] == [
        {
            "bbox": [pytest.approx(44.7), 9, 88, 85],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 14,
            "difficult": 0,
        }
    ]


def test_a_box_of_one_pixel_stays_because_the_challenge_counts_it(voc):
    boxes = boxes_of(register_voc(years=2007, split="test"))
    assert boxes == {"000001": [[7, 11, 52, 71], [29, 29, 30, 40]]}


def test_test_sets_after_2007_have_no_annotations(voc):
    # The archive has some xml files, of the other competitions: they are not read.
    (voc / "VOCdevkit/VOC2012/Annotations/2008_000002.xml").unlink()
    dicts = DatasetCatalog.get(register_voc(years=2012, split="test"))
    assert [(d["image_id"], d["voc_id"], d["width"], d["height"]) for d in dicts] == [
        (1, "2007_000027", 120, 90),
        (2, "2008_000002", 120, 90),
    ]
    assert not any("annotations" in d for d in dicts)
    with pytest.raises(ValueError, match=r"`years` to have annotations or to have none.*2007, 201"):
        register_voc(years=[2007, 2012], split="test")


def test_names_and_second_registrations(voc):
    for year, split in [(2007, "test"), (2012, "trainval")]:
        name = register_voc(years=year, split=split)
        assert name != f"voc_{year}_{split}" and f"voc_{year}_{split}" in DatasetCatalog
        assert register_voc(years=[year], split=split, root=f"{voc}/") == name
    with pytest.raises(ValueError, match=r"on_invalid='drop'; this call has on_invalid='error'"):
        register_voc(years=2007, split="test", on_invalid="error")
    assert register_voc(years=2007, split="test", on_invalid="error", name="strict") == "strict"
    call = LazyCall(get_detection_dataset_dicts)(
        names=LazyCall(register_voc)(years=[2007], split="test")
    )
    assert [d["voc_id"] for d in instantiate(call)] == ["000001"]


def test_coco_metrics_can_be_had_too(voc, tmp_path):
    name = register_voc(years=2007, split="trainval")
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "out"))
    assert [c["name"] for c in evaluator._coco_api.cats.values()] == VOC_CLASSES
    assert len(evaluator._coco_api.anns) == 3


def test_missing_years_say_what_was_looked_for_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    with pytest.raises(FileNotFoundError) as e:
        register_voc(years=[2007, 2012], split="trainval")
    message = str(e.value)
    for part in (
        f"neither {tmp_path}/sets/VOC2007/ImageSets/Main/trainval.txt",
        f"nor {tmp_path}/sets/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt",
        "Get VOCtrainval_06-Nov-2007.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ and "
        f"unpack it in {tmp_path}/sets.",
        "PASCAL VOC 2012 trainval is missing",
        "VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        f"$DETECTRON2_DATASETS is '{tmp_path}/sets'",
        "VOCdevkit/VOC<year>/JPEGImages/*.jpg",
    ):
        assert part in message

    # Training data is there, but not the archive of the test data.
    write_voc(tmp_path / "sets/VOC2007", IMAGES_2007, {"trainval": IMAGES_2007})
    with pytest.raises(FileNotFoundError, match=r"2007/ImageSets/Main/test.txt.*VOCtest_06-Nov-20"):
        register_voc(years=2007, split="test")
    with pytest.raises(FileNotFoundError, match=r"test images of 2012, after registration, from h"):
        register_voc(years=2012, split="test")
    with pytest.raises(FileNotFoundError, match=r"May-2011.tar from.*VOCdevkit out of TrainVal"):
        register_voc(years=2011, split="val")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    with pytest.raises(FileNotFoundError, match=r"/datasets \(\$DETECTRON2_DATASETS is not set\)"):
        register_voc(years=2007, split="test")


@pytest.mark.parametrize("file", ["JPEGImages/000007.jpg", "Annotations/000007.xml"])
def test_a_missing_file_is_an_error_and_no_smaller_data_set(voc, file):
    (voc / "VOC2007" / file).unlink()
    name = register_voc(years=[2007, 2012], split="trainval")
    with pytest.raises(FileNotFoundError) as e:
        DatasetCatalog.get(name)
    assert str(e.value) == (
        f"PASCAL VOC 2007 trainval is incomplete: {voc}/VOC2007/ImageSets/Main/trainval.txt lists "
        f"2 images, and 1 files are missing: {voc}/VOC2007/{file}. Get VOCtrainval_06-Nov-2007.tar "
        f"from http://host.robots.ox.ac.uk/pascal/VOC/voc2007/ and unpack it in {voc}."
    )


@pytest.mark.parametrize("file", ["JPEGImages/000007.jpg", "Annotations/000007.xml"])
def test_a_damaged_file_is_an_error(voc, file):
    (voc / "VOC2007" / file).write_text("<annot")
    with pytest.raises(ValueError, match=rf"(?s)PASCAL VOC trainval.*{file}.*unpack again"):
        DatasetCatalog.get(register_voc(years=2007, split="trainval"))


def test_what_cannot_be_trained_on_is_named(voc, caplog):
    write_voc(voc / "VOC2012", {"a": [("dog", (1, 1, 9, 9)), ("horze", (1, 1, 9, 9))]}, {})
    write_voc(voc / "VOC2012", {"b": [("dog", (100, 5, 130, 9))]}, {"val": ["a", "b"]})
    name = register_voc(years=2012, split="val")
    assert boxes_of(name) == {"a": [[0, 0, 9, 9]], "b": [[99, 4, 120, 9]]}
    assert "a.xml, box 1: class 'horze'" in caplog.text
    assert "b.xml, box 0: (99, 4, 130, 9), image 120 x 90" in caplog.text
    name = register_voc(years=2012, split="val", on_invalid="error", name="strict")
    with pytest.raises(ValueError, match="class 'horze'"):
        DatasetCatalog.get(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"years": 2006}, r"`years` to be distinct years from 2007 to 2012.*got 2006"),
        ({"years": []}, r"got \[\]"),
        ({"years": [2007, 2007]}, r"got \[2007, 2007\]"),
        ({"years": "2007"}, "got '2007'"),
        ({"split": "minival"}, r"`split` to be one of \('train'.*got 'minival'"),
        ({"difficult": True}, "`difficult` to be 'keep' or 'drop', but got True"),
        ({"on_invalid": "ignore"}, "on_invalid must be 'drop' or 'error', but got 'ignore'"),
    ],
)
def test_bad_arguments(voc, arguments, message):
    with pytest.raises(ValueError, match=message):
        register_voc(**{"years": [2007], "split": "trainval", **arguments})
