"""Small data sets on disk, and catalogs that are as they were after each test."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from iou_balanced.data.datasets import registration


@pytest.fixture(autouse=True)
def clean_catalogs():
    """The catalogs are global: take out what the test registered."""
    before = set(DatasetCatalog), set(MetadataCatalog)
    yield
    for catalog, names in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        for name in set(catalog) - names:
            catalog.remove(name)
            registration._ARGUMENTS.pop(name, None)


def _object(name, box, difficult=0):
    xmin, ymin, xmax, ymax = box
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>"
        f"<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
    )


@pytest.fixture
def make_voc(tmp_path):
    """make(images, splits, folder): `images` is {stem: [(class, box, difficult?), ...]}.

    Images are 40 x 30 pixels; `size` is what the xml files say.
    """

    def make(images, splits, folder="blood", size=(40, 30), filename=None) -> Path:
        root = tmp_path / folder
        for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / sub).mkdir(parents=True)
        for stem, objects in images.items():
            Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{filename or stem + '.jpg'}</filename>"
                f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
                + "".join(_object(*o) for o in objects)
                + "</annotation>"
            )
        for split, stems in splits.items():
            text = "".join(f"{s}\n" for s in stems)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
        return root

    return make


@pytest.fixture
def make_coco(tmp_path):
    """make(**changes): a valid COCO JSON file of two images of 40 x 30 and three boxes.

    `changes` replaces its entries, None takes one out. Returns (json_file, image_root).
    """

    def make(**changes) -> tuple[Path, Path]:
        data = {
            "images": [
                {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 5, "file_name": "b.png", "width": 40, "height": 30},
            ],
            "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [coco_box(1, 7, 9), coco_box(2, 7, 2, iscrowd=1), coco_box(3, 5, 2)],
            **changes,
        }
        data = {k: v for k, v in data.items() if v is not None}
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
        json_file = tmp_path / "instances.json"
        json_file.write_text(json.dumps(data))
        return json_file, tmp_path / "images"

    return make


def coco_box(number, image_id, category_id, bbox=(2, 3, 10, 12), **more) -> dict:
    area = bbox[2] * bbox[3] if len(bbox) == 4 else 0
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "area": area,
        "iscrowd": 0,
        **more,
    }


@pytest.fixture(name="coco_box")
def coco_box_fixture():
    """coco_box(number, image_id, category_id, bbox=(x, y, w, h), **more): an annotation."""
    return coco_box
