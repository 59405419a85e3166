"""Each kind of value that exporters write, through the loader that training uses."""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from PIL import Image

from iou_balanced.data import register_coco_json
from iou_balanced.data.datasets import image_checks


def load(files, caplog=None, **kwargs):
    kwargs.setdefault("name", "values")
    name = register_coco_json(json_file=str(files[0]), image_root=str(files[1]), **kwargs)
    if caplog is None:
        return DatasetCatalog.get(name)
    with caplog.at_level(logging.WARNING):
        return DatasetCatalog.get(name)


def boxes_in(dicts):
    return [len(d["annotations"]) for d in dicts]


SEGMENTATIONS = {
    "absent": ...,
    "null": None,
    "empty": [],
    "list of an empty list": [[]],
    "flat": [2, 3, 12, 3, 12, 15, 2, 15],
    "two corners": [[2, 3, 12, 15]],
    "odd": [[2, 3, 12, 3, 12, 15, 2]],
    "text": "none",
    "of text": [["2", "3", "12", "3", "12", "15"]],
    "number": 5,
    "RLE of a crowd": {"size": [30, 40], "counts": [100, 20, 1080]},
    "RLE that is longer than its mask": {"size": [30, 40], "counts": [100, 20, 1081]},
    "RLE of a number that none is": {"size": [30, 40], "counts": [100, 10**400]},
    "RLE without counts": {"size": [30, 40]},
    "polygon": [[2, 3, 12, 3, 12, 15]],
}
MASKS = {"RLE of a crowd", "polygon"}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_segmentation_never_decides_about_a_box(make_coco, coco_box, caplog, kind):
    box = coco_box(1, 7, 9)
    if SEGMENTATIONS[kind] is not ...:
        box["segmentation"] = SEGMENTATIONS[kind]
    files = make_coco(annotations=[box, coco_box(2, 5, 2)])
    dicts = load(files, caplog)
    assert boxes_in(dicts) == [1, 1] and not caplog.text
    (record,) = [d for d in dicts if d["image_id"] == 7]
    assert record["annotations"][0]["bbox"] == [2, 3, 10, 12]
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    assert len(mapper(record)["instances"]) == 1


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_with_masks_what_has_none_is_dropped_and_told(make_coco, coco_box, caplog, kind):
    box = coco_box(1, 7, 9)
    if SEGMENTATIONS[kind] is not ...:
        box["segmentation"] = SEGMENTATIONS[kind]
    good = coco_box(2, 5, 2, segmentation=[[2, 3, 12, 3, 12, 15]])
    dicts = load(make_coco(annotations=[box, good]), caplog, masks=True)
    assert boxes_in(dicts) == [1, int(kind in MASKS)]  # images 5 and 7
    if kind in MASKS:
        assert not caplog.text
        mapper = DatasetMapper(
            is_train=True,
            augmentations=[],
            image_format="BGR",
            use_instance_mask=True,
            instance_mask_format="bitmask",
        )
        assert mapper(dicts[1])["instances"].gt_masks.tensor.any()
    else:
        assert "1 x box without a usable mask" in caplog.text and "by class: cat 1" in caplog.text
        assert "annotation id 1 (annotations[0])" in caplog.text


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "true"])
def test_flags_that_make_a_crowd(make_coco, coco_box, caplog, value):
    files = make_coco(annotations=[coco_box(1, 7, 9, iscrowd=value), coco_box(2, 5, 2)])
    (record,) = [d for d in load(files, caplog) if d["image_id"] == 7]
    assert record["annotations"][0]["iscrowd"] == 1
    assert "1 x crowd region" in caplog.text and "by class: cat 1" in caplog.text


@pytest.mark.parametrize("value", [0, 0.0, False, "0", None, ...])
def test_flags_that_make_none(make_coco, coco_box, caplog, value):
    box = coco_box(1, 7, 9, iscrowd=value)
    if value is ...:
        del box["iscrowd"]
    (record,) = [
        d
        for d in load(make_coco(annotations=[box, coco_box(2, 5, 2)]), caplog)
        if d["image_id"] == 7
    ]
    assert record["annotations"][0]["iscrowd"] == 0
    # What is as it should be, or a number of another type, is not worth a word.
    told = isinstance(value, (bool, str)) or value in (None, ...)
    assert ("annotation id 1" in caplog.text) == told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iscrowd": "maybe"}, "iscrowd: 'maybe', which is neither 0 nor 1"),
        ({"iscrowd": 2}, "iscrowd: 2, which is neither 0 nor 1"),
        ({"bbox": None}, "bbox None"),
        ({"bbox": []}, r"bbox []"),
        ({"bbox": [1, 2, 3]}, "bbox [1, 2, 3]"),
        ({"bbox": [1, 2, None, 4]}, "bbox [1, 2, None, 4]"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox [1, 2, nan, 4]"),
        ({"bbox": [1, True, 3, 4]}, "bbox [1, True, 3, 4]"),
        ({"bbox": ["1,5", "2", "3", "4"]}, "bbox ['1,5', '2', '3', '4']"),
        ({"bbox": {"x": 1}}, "bbox {'x': 1}"),
        ({"category_id": None}, "category_id None"),
        ({"category_id": True}, "category_id True"),
        ({"category_id": "cat"}, "category_id 'cat'"),
        ({"image_id": None}, "image_id None"),
        ({"image_id": [7]}, "image_id [7]"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(
    make_coco, coco_box, caplog, changes, message
):
    box = coco_box(1, 7, 9)
    box.update(changes)
    files = make_coco(annotations=[box, coco_box(2, 5, 2)])
    assert boxes_in(load(files, caplog)) == [1, 0]
    (line,) = [x for x in caplog.text.splitlines() if message in x]
    assert "instances.json, annotation id 1 (annotations[0])" in line
    with pytest.raises(ValueError, match=r"annotations\[0\]"):
        load(files, name="strict", on_invalid="error")


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": ["2", " 3", "10.0", "12"]},
        {"category_id": "9"},
        {"category_id": 9.0},
        {"image_id": "7"},
        {"id": "a"},
        {"id": None},
        {"area": "many"},
        {"ignore": "0"},
        {"ignore": 1},
    ],
)
def test_what_can_mean_one_thing_only_is_read(make_coco, coco_box, changes):
    box = coco_box(1, 7, 9)
    box.update(changes)
    # It is told, and no reason to refuse the data.
    dicts = load(make_coco(annotations=[box, coco_box(2, 5, 2)]), on_invalid="error")
    assert boxes_in(dicts) == [1, 1]
    assert dicts[1]["annotations"][0]["bbox"] == [2, 3, 10, 12]
    assert dicts[1]["annotations"][0]["category_id"] == 1


def images(**changes):
    first = {"id": 7, "file_name": "a.png", "width": 40, "height": 30}
    second = {"id": 5, "file_name": "b.png", "width": 40, "height": 30}
    return [{**first, **changes}, second]


@pytest.mark.parametrize(
    "size", [(-1, -1), (None, None), (0, 30), (True, 30), ("?", 3), (40.5, 3), (10**400, 3)]
)
def test_a_size_that_the_file_does_not_have(make_coco, caplog, size):
    files = make_coco(images=images(width=size[0], height=size[1]))
    (record,) = [d for d in load(files, caplog) if d["image_id"] == 7]
    assert (record["width"], record["height"]) == (40, 30)
    assert "1 x image without a size in the annotation file" in caplog.text


def test_a_size_as_text_or_float(make_coco):
    files = make_coco(images=images(width="40", height=30.0))
    (record,) = [d for d in load(files, on_invalid="error") if d["image_id"] == 7]
    assert (record["width"], record["height"]) == (40, 30)
    assert type(record["width"]) is type(record["height"]) is int


def test_boxes_on_an_image_of_another_size(make_coco, coco_box, caplog):
    # Drawn on 80 x 60, and the image was made smaller afterwards.
    boxes = [coco_box(1, 7, 9, (50, 40, 20, 15)), coco_box(2, 5, 2)]
    files = make_coco(images=images(width=80, height=60), annotations=boxes)
    assert [d["image_id"] for d in load(files, caplog)] == [5]
    assert "80 x 60, but a.png is 40 x 30" in caplog.text
    assert "1 x image whose boxes fit the size in the annotation file and not" in caplog.text


def test_an_image_that_was_scaled_and_whose_boxes_fit_either_size(make_coco, caplog):
    # 80 x 60 is 40 x 30 twice: the boxes were drawn there, and would be on other pixels here.
    files = make_coco(images=images(width=80, height=60))
    assert [d["image_id"] for d in load(files, caplog)] == [5]
    assert "80 x 60, but a.png is 40 x 30" in caplog.text


def test_a_size_that_is_wrong_though_the_boxes_are_not(make_coco, caplog):
    files = make_coco(images=images(width=30, height=40))
    (record,) = [d for d in load(files, caplog) if d["image_id"] == 7]
    assert (record["width"], record["height"]) == (40, 30)
    assert "1 x wrong image size" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": images(id=5)}, "image id 5 twice, for a.png and for b.png"),
        ({"images": images(id=5.0)}, "image id 5 twice, for a.png and for b.png"),
        ({"images": images(id=None)}, r"images\[0\] has the id None"),
        ({"images": images(id=True)}, r"images\[0\] has the id True"),
        ({"images": images(file_name=None)}, r"images\[0\] has the file_name None"),
        (
            {"categories": [{"id": 9, "name": "cat"}, {"id": 9, "name": "dog"}]},
            "category id 9 twice, for 'cat' and for 'dog'",
        ),
        (
            {"categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "cat"}]},
            "class name 'cat' under two category ids, 9 and 2",
        ),
        ({"categories": [{"id": 9, "name": None}]}, r"categories\[0\] has the name None"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(make_coco, changes, message):
    with pytest.raises(ValueError, match=message):
        load(make_coco(**changes))


def test_ids_of_two_types_are_two_ids(make_coco, coco_box):
    files = make_coco(images=images(id="5"), annotations=[coco_box(1, "5", 9), coco_box(2, 5, 2)])
    by_file = {d["file_name"][-5:]: d for d in load(files)}
    assert [by_file[f]["annotations"][0]["category_id"] for f in ("a.png", "b.png")] == [1, 0]


def test_one_picture_twice_is_told(make_coco, caplog):
    assert len(load(make_coco(images=images(file_name="b.png")), caplog)) == 2
    assert "b.png: images[0] and images[1]" in caplog.text


def test_categories_that_are_repeated_alike(make_coco):
    categories = [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "cat"}]
    assert boxes_in(load(make_coco(categories=categories), on_invalid="error")) == [1, 2]


def test_corners_are_read_where_it_is_said(make_coco, coco_box):
    files = make_coco(annotations=[coco_box(1, 7, 9, (30, 20, 38, 28)), coco_box(2, 5, 2)])
    name = register_coco_json(
        name="corners", json_file=str(files[0]), image_root=str(files[1]), bbox_format="xyxy"
    )
    dicts = DatasetCatalog.get(name)
    assert dicts[1]["annotations"][0]["bbox"] == [30, 20, 8, 8]
    assert MetadataCatalog.get(name).get("json_file") is None
    with pytest.raises(ValueError, match=r"`bbox_format` to be None or one of \('xywh', 'xyxy'\)"):
        load(files, name="bad", bbox_format="yolo")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(5, 5, 0, 9)], "no usable box left: 1 x box without area"),
        ([(50, 5, 9, 9), (5, 5, 0, 9)], "1 x box without area .*; 1 x box entirely outside"),
    ],
)
def test_no_box_left_names_the_causes(make_coco, coco_box, boxes, message):
    annotations = [coco_box(i, 7, 9, box) for i, box in enumerate(boxes)]
    with pytest.raises(ValueError, match=message):
        load(make_coco(annotations=annotations))


def test_only_crowds_left(make_coco, coco_box, caplog):
    """A set that can be evaluated; training says that it has no box."""
    records = load(make_coco(annotations=[coco_box(1, 7, 9, iscrowd=1)]), caplog)
    assert sum(len(r["annotations"]) for r in records) == 1
    assert "1 x crowd region, iscrowd=1" in caplog.text
    both = [coco_box(1, 7, 9, iscrowd=1), coco_box(2, 7, 9, (5, 5, 0, 9))]
    with pytest.raises(ValueError, match=r"no usable box left: 1 x box without area .*1 x crowd"):
        load(make_coco(annotations=both))


def test_images_without_boxes_are_told(make_coco, coco_box, caplog):
    load(make_coco(annotations=[coco_box(1, 7, 9)]), caplog)
    for part in ("1 x image without boxes", "b.png", "1 x class without a box\n    dog"):
        assert part in caplog.text


def test_stock_evaluation_gets_a_fitting_file(make_coco, coco_box):
    # Detectron2's own evaluator is not given a file that it would read otherwise.
    for name, change in {"zero": {"id": 0}, "text": {"id": "x"}, "flag": {"iscrowd": "0"}}.items():
        box = {**coco_box(1, 7, 9), **change}
        files = make_coco(annotations=[box, coco_box(2, 5, 2)])
        load(files, name=name)
        assert MetadataCatalog.get(name).get("json_file") is None
    load(make_coco(), name="plain")
    assert MetadataCatalog.get("plain").json_file.endswith("instances.json")


def test_exif_where_the_file_has_no_size(make_coco, caplog):
    files = make_coco(images=images(width=None))
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (30, 40)).save(files[1] / "a.png", exif=exif)
    (record,) = [d for d in load(files, caplog) if d["image_id"] == 7]
    assert (record["width"], record["height"]) == (40, 30)
    assert "EXIF orientation 6" in caplog.text


def phone_photos(files, number, turned):
    """JPEG images of 40 x 30 stored pixels, of which `turned` are shown upright, and their JSON."""
    exif = Image.Exif()
    exif[274] = 6
    entries, boxes = [], []
    for i in range(number):
        kwargs = {"exif": exif} if i in turned else {}
        Image.new("RGB", (40, 30)).save(files[1] / f"{i}.jpg", **kwargs)
        entries.append({"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30})
        box = {"bbox": [30, 5, 8, 9], "area": 72, "iscrowd": 0}
        boxes.append({"id": i, "image_id": i, "category_id": 9, **box})
    data = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**data, "images": entries, "annotations": boxes}))


def test_photographs_annotated_on_their_stored_pixels_are_refused(make_coco, caplog):
    files = make_coco()
    phone_photos(files, 5, turned={1, 3})
    assert [d["image_id"] for d in load(files, caplog)] == [0, 2, 4]
    assert "2 x image whose boxes fit the size in the annotation file and not" in caplog.text
    assert "1.jpg is 30 x 40 (EXIF orientation 6, stored as 40 x 30)" in caplog.text


@pytest.mark.parametrize("turned", [set(), {8}])
def test_of_many_photographs_a_part_is_looked_at(make_coco, caplog, monkeypatch, turned):
    monkeypatch.setattr(image_checks, "_NUM_HEADERS", 4)
    read = []
    header = image_checks.read_header
    monkeypatch.setattr(image_checks, "read_header", lambda path: read.append(path) or header(path))
    files = make_coco()
    phone_photos(files, 16, turned)
    assert len(load(files, caplog)) == 16 - len(turned)
    # 0, 4, 8, 12; and where one is not what it should be, all.
    assert len(set(read)) == (16 if turned else 4)


def test_a_mirrored_photograph_is_told(make_coco, caplog):
    files = make_coco(images=[{"id": 7, "file_name": "m.jpg", "width": 40, "height": 30}])
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", (40, 30)).save(files[1] / "m.jpg", exif=exif)
    assert len(load(files, caplog)) == 1
    assert "m.jpg: EXIF orientation 3" in caplog.text


@pytest.mark.parametrize("size", [(None, None), (0, 0), (-1, -1)])
@pytest.mark.parametrize(
    ("bbox", "message"),
    [([0.2, 0.3, 0.4, 0.5], "8 of 8 boxes are smaller"), ([20, 15, 38, 28], "all fit when they")],
)
def test_other_formats_where_the_file_has_no_sizes(make_coco, coco_box, size, bbox, message):
    boxes = [coco_box(i, 7, 9, bbox) for i in range(8)]
    first = {"id": 7, "file_name": "a.png", "width": size[0], "height": size[1]}
    with pytest.raises(ValueError, match=message):
        load(make_coco(images=[first], annotations=boxes))


@pytest.mark.parametrize("points", [["1", "2", "2"], [None, 0, 2], [[1, 2, 2]], [1, 2], "none", {}])
def test_keypoints_never_decide_about_a_box(make_coco, coco_box, points):
    files = make_coco(annotations=[coco_box(1, 7, 9, keypoints=points), coco_box(2, 5, 2)])
    assert boxes_in(load(files)) == [1, 1]


def test_a_number_beyond_all_floats(make_coco, coco_box, caplog):
    files = make_coco(annotations=[coco_box(1, 7, 9, (1, 2, 10**400, 4)), coco_box(2, 5, 2)])
    assert boxes_in(load(files, caplog)) == [1, 0]
    assert "annotations[0]" in caplog.text


def test_class_names_that_differ_in_spelling_only_are_told(make_coco, caplog):
    categories = [{"id": 9, "name": "cat"}, {"id": 2, "name": "Cat"}]
    load(make_coco(categories=categories), caplog)
    assert "'Cat', 'cat'" in caplog.text and "1 x class names that differ in upper" in caplog.text
    with pytest.raises(ValueError, match="class names that differ"):
        load(make_coco(categories=categories), name="strict", on_invalid="error")
