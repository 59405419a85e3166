"""VOC folders as tools and people write them: encodings, EXIF, sizes, flags."""

import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from PIL import Image

from iou_balanced.data import register_voc_dir

CAT = [("cat", (2, 2, 9, 9))]


def load(root, caplog=None, split="x", **kwargs):
    name = register_voc_dir(root=str(root), split=split, **kwargs)
    if caplog is None:
        return DatasetCatalog.get(name)
    with caplog.at_level(logging.WARNING):
        return DatasetCatalog.get(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_split_list_in_any_declared_encoding(make_voc, encoding):
    root = make_voc({"a": CAT, "ü": CAT}, {"x": ["a", "ü"]})
    path = root / "ImageSets" / "Main" / "x.txt"
    path.write_bytes("a\r\nü\r\n".encode(encoding))
    assert [(d["image_id"], d["voc_id"]) for d in load(root)] == [(1, "a"), (2, "ü")]


def test_split_list_in_another_encoding_is_named(make_voc):
    root = make_voc({"ü": CAT}, {"x": ["ü"]})
    (root / "ImageSets" / "Main" / "x.txt").write_bytes("ü\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"Main/x\.txt is not utf-8 text .*save it as UTF-8"):
        load(root)


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [("gb2312", "gb2312", "猫"), ("ANSI", "ascii", "cat"), ("utf-16", "utf-16", "猫")],
)
def test_xml_in_any_known_encoding(make_voc, declared, encoding, name):
    root = make_voc({"a": [(name, (2, 2, 9, 9))]}, {"x": ["a"]})
    path = root / "Annotations" / "a.xml"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding))
    assert len(load(root)[0]["annotations"]) == 1
    assert MetadataCatalog.get("blood_x").thing_classes == [name]


def test_xml_in_an_unknown_encoding_is_named(make_voc, caplog):
    root = make_voc({"a": CAT, "b": CAT}, {"x": ["a", "b"]})
    path = root / "Annotations" / "a.xml"
    head = '<?xml version="1.0" encoding="klingon"?>\n<!-- ü -->'
    path.write_bytes((head + path.read_text()).encode("latin-1"))
    assert [d["voc_id"] for d in load(root, caplog)] == ["b"]
    assert "a.xml: declares the encoding 'klingon', which is not known" in caplog.text


def red_square(root, stem, orientation, box=(4, 6, 16, 14), size=(40, 30)):
    """An image whose only red pixels are `box`, stored upright and shown turned."""
    pixels = np.full((size[1], size[0], 3), 120, dtype=np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = (255, 0, 0)
    exif = Image.Exif()
    exif[274] = orientation
    (root / "JPEGImages" / f"{stem}.jpg").unlink(missing_ok=True)
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{stem}.png", exif=exif)
    return x0 + 1, y0 + 1, x1, y1  # as VOC counts


def red_in_the_box(record):
    data = DatasetMapper(is_train=True, augmentations=[], image_format="RGB")(record)
    ((x0, y0, x1, y1),) = data["instances"].gt_boxes.tensor.round().int().tolist()
    inside = np.zeros(data["image"].shape[1:], dtype=bool)
    inside[y0:y1, x0:x1] = True
    red = (data["image"][0] == 255).numpy()
    return (inside == red).all()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_stored_pixels_are_turned_along(make_voc, caplog, orientation):
    root = make_voc({"a": [("cat", (5, 7, 16, 14))]}, {"x": ["a"]})
    red_square(root, "a", orientation)
    (record,) = load(root, caplog, on_invalid="error")
    assert (record["width"], record["height"]) == (30, 40)
    assert red_in_the_box(record)
    assert "1 x image annotated on its stored pixels" in caplog.text
    assert f"EXIF orientation {orientation}, stored as 40 x 30" in caplog.text


@pytest.mark.parametrize("orientation", [6, 8])
def test_boxes_on_the_image_as_it_is_seen_stay(make_voc, caplog, orientation):
    shown = {6: (30 - 14, 4, 30 - 6, 16), 8: (6, 40 - 16, 14, 40 - 4)}[orientation]
    box = (shown[0] + 1, shown[1] + 1, *shown[2:])
    root = make_voc({"a": [("cat", box)]}, {"x": ["a"]}, size=(30, 40))
    red_square(root, "a", orientation)
    (record,) = load(root, caplog)
    assert not caplog.text and red_in_the_box(record)


@pytest.mark.parametrize(("orientation", "size"), [(3, (40, 30)), (2, (40, 30)), (6, (30, 30))])
def test_where_the_size_does_not_tell_it_is_said(make_voc, caplog, orientation, size):
    root = make_voc({"a": CAT}, {"x": ["a"]}, size=size)
    red_square(root, "a", orientation, size=size)
    load(root, caplog, on_invalid="error")
    assert "1 x image with an EXIF orientation that its size does not show" in caplog.text


def test_boxes_of_another_image_size(make_voc, caplog):
    # Annotated at 400 x 300, and the images were made smaller.
    images = {"a": [("cat", (200, 100, 300, 200))], "b": [("cat", (300, 20, 390, 90))]}
    root = make_voc(images, {"x": ["a", "b"]}, size=(400, 300))
    with pytest.raises(ValueError, match="no usable image left: 2 x image whose boxes fit the"):
        load(root)
    # Ten times the image's sides: also where the boxes would fit.
    root = make_voc({"a": CAT}, {"x": ["a"]}, size=(400, 300), folder="scaled")
    with pytest.raises(ValueError, match="no usable image left: 1 x image whose boxes fit"):
        load(root)
    # Of other proportions, and the boxes fit the image: the stated size alone is wrong.
    root = make_voc({"a": CAT}, {"x": ["a"]}, size=(500, 300), folder="other")
    (record,) = load(root, caplog)
    assert (record["width"], record["height"]) == (40, 30)
    assert "a.xml: 500 x 300, but a.jpg is 40 x 30" in caplog.text


def test_boxes_that_fit_the_turned_image_only_stay(make_voc, caplog):
    # The size is the stored one, 40 x 30, and the box was drawn on what is seen, 30 x 40.
    root = make_voc({"a": [("cat", (5, 33, 12, 39))]}, {"x": ["a"]})
    red_square(root, "a", 6)
    (record,) = load(root, caplog)
    assert [a["bbox"] for a in record["annotations"]] == [[4, 32, 12, 39]]
    assert "1 x wrong image size" in caplog.text


def test_the_image_that_the_file_names(make_voc):
    root = make_voc({"a": CAT}, {"x": ["a"]}, filename="a.png")
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "a.png")
    assert load(root)[0]["file_name"].endswith("a.png")


def test_no_xml_that_can_be_read_says_why(make_voc):
    root = make_voc({"a": CAT}, {"x": ["a"]})
    path = root / "Annotations" / "a.xml"
    path.write_text('<?xml version="1.0" encoding="utf-16"?>' + path.read_text())
    with pytest.raises(ValueError, match=r"no classes; 1 of them cannot be read, first a\.xml: "):
        load(root)


def test_swapped_sides_are_told(make_voc, caplog):
    root = make_voc({"a": CAT}, {"x": ["a"]}, size=(30, 40))
    assert load(root, caplog)[0]["width"] == 40
    assert "1 x wrong image size" in caplog.text


def test_images_that_are_no_images(make_voc, caplog):
    root = make_voc({"a": CAT, "b": CAT}, {"x": ["a", "b"]})
    (root / "JPEGImages" / "a.jpg").write_text("no image")
    assert [d["voc_id"] for d in load(root, caplog)] == ["b"]
    assert "1 x image file that cannot be read" in caplog.text and "a.jpg" in caplog.text


def test_an_image_that_is_listed_twice(make_voc, caplog):
    root = make_voc({"a": CAT}, {"x": ["a", "a"]})
    assert len(load(root, caplog)) == 2
    assert "x.txt: a, lines 1 and 2" in caplog.text


def test_difficult_objects_that_are_left_out_are_told_by_class(make_voc, caplog):
    root = make_voc({"a": [("cat", (2, 2, 9, 9), 1), ("dog", (2, 2, 9, 9))]}, {"x": ["a"]})
    (record,) = load(root, caplog, difficult="drop")
    assert len(record["annotations"]) == 1
    assert "1 x difficult object" in caplog.text and "by class: cat 1" in caplog.text
    only = make_voc({"a": [("cat", (2, 2, 9, 9), 1)]}, {"x": ["a"]}, folder="only")
    with pytest.raises(ValueError, match="no usable box left: 1 x difficult object"):
        load(only, difficult="drop")


@pytest.mark.parametrize(("text", "flag"), [("true", 1), ("1", 1), ("False", 0), ("", 0), ("?", 0)])
def test_difficult_in_other_words(make_voc, caplog, text, flag):
    root = make_voc({"a": [("cat", (2, 2, 9, 9), text)]}, {"x": ["a"]})
    (record,) = load(root, caplog)
    assert record["annotations"][0]["difficult"] == flag
    assert ("difficult: '?' (taken as 0)" in caplog.text) == (text == "?")


def test_class_names_that_no_file_has(make_voc, caplog):
    root = make_voc({"a": CAT}, {"x": ["a"]})
    (record,) = load(root, caplog, class_names=["dog", "cat"])
    assert record["annotations"][0]["category_id"] == 1
    assert "1 x class without a box\n    dog" in caplog.text
    with pytest.raises(ValueError, match=r"class_names has 'cow', but the xml files in .* 'cat'"):
        load(root, name="b", class_names=["cow"])
    with pytest.raises(ValueError, match="blanks only: 'Cat' and 'cat'"):
        load(root, name="c", class_names=["Cat"])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0.1, 0.2, 0.5, 0.6)], "1 of 1 boxes are smaller than a pixel.*shares of the image"),
        ([(20, 15, 9, 8)] * 8, r"8 of 8 boxes end before they begin .*a\.xml, box 0"),
    ],
)
def test_boxes_in_another_format_are_refused(make_voc, boxes, message):
    root = make_voc({"a": [("cat", box) for box in boxes]}, {"x": ["a"]})
    with pytest.raises(ValueError, match=message):
        load(root)
