"""Images on the page: found, turned, made small; and the boxes on them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from iou_balanced.analysis.page import ImageFinder, make_page
from iou_balanced.analysis.page.gallery import choose_images, default_score, make_gallery
from iou_balanced.analysis.page.pictures import encode, read_picture
from iou_balanced.formats.image_files import ImageError

from .data import NUM_IMAGES, SIZE, analysis_of, detections, write_truth
from .reading import Page

RUNS = {"plain": detections(6), "ours": detections(1)}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    return analysis_of(write_truth(tmp_path_factory.mktemp("truth")), RUNS)


def finder_of(analysis):
    return ImageFinder(analysis.settings["ground_truth"])


def gallery_of(analysis, **options):
    options = {"num_images": 8, "num_bytes": 1e6, **options}
    return make_gallery(analysis, finder_of(analysis), **options)


def test_boxes_are_where_they_were_found(analysis):
    gallery = gallery_of(analysis)
    image = next(x for x in gallery["images"] if x["name"] == "3.png")
    plain, ours = image["panels"]
    assert (plain["run"], ours["run"]) == ("plain", "ours")
    # The object of class 1: x 70 of 200, y 23 of 100, 40 by 50 pixels.
    assert plain["objects"][1]["place"] == "left:35%;top:23%;width:20%;height:50%"
    found = next(x for x in RUNS["ours"] if x["image_id"] == 13 and x["category_id"] == 2)
    box = next(x for x in ours["boxes"] if x["title"].startswith("dog"))
    x, y = found["bbox"][0] / 2, found["bbox"][1]
    assert box["place"] == f"left:{x:.4g}%;top:{y:.4g}%;width:20%;height:50%"
    assert box["label"].startswith(f"dog {found['score']:.2f}") and box["status"] == "true"
    # Shift dx, dy of a box of 40 by 50.
    dx, dy = abs(found["bbox"][0] - 70), abs(found["bbox"][1] - 23)
    overlap = (40 - dx) * (50 - dy)
    assert box["label"].endswith(f"{overlap / (4000 - overlap):.2f}")
    pixels = Image.open(io.BytesIO(base64.b64decode(image["uri"].split(",")[1])))
    assert np.abs(np.asarray(pixels).mean(axis=(0, 1)) - (90, 90, 90)).max() < 3


def test_images_that_changed_most_and_some_of_each_class(analysis):
    found = analysis.changes["differences"]["ours"]
    chosen = choose_images(analysis, 4)
    assert chosen[:2] == [x["image_id"] for x in found["images"][:2]]
    assert len(set(chosen)) == 4 and len(choose_images(analysis, 99)) <= NUM_IMAGES
    gallery = gallery_of(analysis)
    for k, row in enumerate(gallery["by_class"]):
        listed = found["classes"][row["name"]]
        assert row["num_drawn"] == len(listed) == 4
        ids = {x["name"] for x in gallery["images"] if k in x["classes"]}
        assert ids == {x["file_name"] for x in listed}


def test_the_least_score_shows_about_as_many_boxes_as_objects():
    boxes = [{"score": x} for x in (0.9, 0.5, 0.17, 0.05)]
    detail = {"objects": [None] * 3, "runs": {"a": boxes, "b": boxes[:1]}}
    assert default_score([detail]) == 0.15
    assert default_score([{**detail, "objects": [None]}]) == 0.3
    assert default_score([{"objects": [], "runs": {"a": []}}]) == default_score([]) == 0.3


def test_missing_images_are_said(tmp_path):
    analysis = analysis_of(write_truth(tmp_path, images=None), RUNS)
    (text,) = gallery_of(analysis)["missing"]
    assert re.fullmatch(
        r"8 of 8 images are not found, first \d\.png; looked in .*\. --images DIR names .*", text
    )
    Image.new("RGB", SIZE).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    gallery = gallery_of(analysis)
    assert [x["name"] for x in gallery["images"]] == ["0.png"]
    assert gallery["missing"][0].startswith("6 of 8 images are not found")
    assert "1.png cannot be read" in gallery["missing"][1] and len(gallery["missing"]) == 2


@pytest.mark.parametrize(
    ("truth", "image"),
    [
        ("data/truth.json", "data/a/1.jpg"),
        ("data/annotations/instances_val2017.json", "data/val2017/1.jpg"),
        ("data/annotations/truth.json", "data/images/1.jpg"),
        ("voc", "voc/JPEGImages/1.jpg"),
    ],
)
def test_images_are_found_beside_the_ground_truth(truth, image, tmp_path):
    file = tmp_path / image
    file.parent.mkdir(parents=True)
    file.touch()
    path = tmp_path / truth
    path.parent.mkdir(parents=True, exist_ok=True)
    assert ImageFinder(path).find("a/1.jpg" if "/a/" in image else "1.jpg") == file
    assert ImageFinder("", file.parent).find("elsewhere/1.jpg") == file
    assert ImageFinder("").find(str(file)) == file
    assert ImageFinder(path).find("2.jpg") is None
    assert truth != "voc" or ImageFinder(path).find("1") == file  # the stem


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_images_are_turned_as_in_training(orientation, tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40] = 255  # the upper left quarter of what is stored
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    size = (40, 80) if orientation == 6 else (80, 40)
    picture = read_picture(tmp_path / "a.png", size)
    assert picture.image.size == size and not picture.note
    corner = {1: (5, 5), 3: (75, 35), 6: (35, 5)}[orientation]
    assert picture.image.getpixel(corner) == (255, 255, 255)
    if orientation == 6:  # boxes on the stored pixels
        stored = read_picture(tmp_path / "a.png", (80, 40))
        assert stored.image.size == (80, 40) and "Drawn as stored" in stored.note


def test_images_of_another_shape_16_bits_and_none(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "square.png")
    assert (
        "the ground truth says 200 \u00d7 100" in read_picture(tmp_path / "square.png", SIZE).note
    )
    # The same shape at another scale: percents fit.
    picture = read_picture(tmp_path / "square.png", (50, 50))
    assert (picture.width, picture.note) == (50, "")
    assert read_picture(tmp_path / "square.png", (0, 0)).width == 100  # of VOC without a size
    wide = np.full((10, 10), 1000, np.uint16)
    wide[0] = 3000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    shown = read_picture(tmp_path / "wide.png", (10, 10)).image
    assert shown.getpixel((0, 0)) == (255, 255, 255) and shown.getpixel((5, 5)) == (0, 0, 0)
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"b\.png cannot be read"):
        read_picture(tmp_path / "b.png", (1, 1))


def test_the_page_stays_small(tmp_path):
    """Images of noise, the worst for JPEG, with 40 objects each."""
    rng = np.random.default_rng(0)
    truth = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(12)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {
                "id": n,
                "image_id": n % 12,
                "category_id": 1 + n % 2,
                "bbox": [*rng.uniform(0, 400, 2).round(2).tolist(), 60, 60],
                "area": 3600,
                "iscrowd": 0,
            }
            for n in range(12 * 40)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for i in range(12):
        pixels = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    runs = {}
    for name, keep in (("one", 0.9), ("two", 0.6)):
        runs[name] = [
            {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
            for a in truth["annotations"]
            if rng.random() < keep
        ]
    html = make_page(analysis_of(tmp_path / "truth.json", runs)).html
    assert len(Page(html).of_class("figure", "images")) == 12
    assert 500_000 < len(html.encode()) < 2_000_000


def test_few_bytes_make_small_pictures(analysis):
    path = finder_of(analysis).find("1.png")
    pictures = [read_picture(path, SIZE)]
    large, small = encode(pictures, 1e6), encode(pictures, 1)
    assert len(small[0]) < len(large[0]) and Image.open(io.BytesIO(small[0])).width == 160
    assert encode([], 10) == []
