"""A folder in VOC format is what Detectron2's evaluation of it scores."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from iou_balanced.analysis import analyze, read_detections, read_ground_truth
from iou_balanced.data import register_voc_dir
from iou_balanced.evaluation.coco_ground_truth import ground_truth_of, keep_converted

IMAGES = {
    "007": [("cat", (11, 21, 40, 50)), ("dog", (1, 1, 64, 48), 1)],
    "2": [("dog", (5, 5, 30, 30)), ("cat", (9, 9, 9, 20))],  # the last has no area
    "1": [],
}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def make_folder(tmp_path):
    root = tmp_path / "voc"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    from PIL import Image

    for stem, objects in IMAGES.items():
        Image.new("RGB", (64, 48)).save(root / f"JPEGImages/{stem}.jpg")
        xml = "".join(
            f"<object><name>{name}</name><difficult>{(*rest, 0)[0]}</difficult><bndbox>"
            + "".join(
                f"<{k}>{v}</{k}>"
                for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            + "</bndbox></object>"
            for name, box, *rest in objects
        )
        (root / f"Annotations/{stem}.xml").write_text(
            f"<annotation><filename>{stem}.jpg</filename><size><width>64</width>"
            f"<height>48</height></size>{xml}</annotation>"
        )
    (root / "ImageSets/Main/val.txt").write_text("007\n2\n1\n")
    return root


def test_equals_the_exported_file(folder, tmp_path):
    name = register_voc_dir(root=str(folder), split="val", name="analysis_voc_folder")
    try:
        keep_converted(name, str(tmp_path), ground_truth_of(name))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    exported = read_ground_truth(tmp_path / f"{name}_coco_format.json")
    found = read_ground_truth(folder)
    for key in ("image_ids", "class_names", "category_ids"):
        assert list(getattr(found, key)) == list(getattr(exported, key)), key
    for key in ("image", "category", "boxes", "area", "ignored", "image_sizes"):
        np.testing.assert_array_equal(getattr(found, key), getattr(exported, key), key)
    assert any("1 difficult objects count" in note for note in found.notes)
    assert any("1 boxes without area" in note for note in found.notes)
    assert read_ground_truth(folder, difficult="ignore").ignored.tolist() == [False, True, False]


def result(image_id, category_id, *bbox):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": 0.9}


def test_images_by_stem_or_number(folder):
    truth = read_ground_truth(folder, split="val")
    box = (10, 20, 30, 28)
    for ids in (("007", "2", "1"), (1, 2, 3)):  # stems; lines of the split
        results = [result(i, "cat", *box) for i in ids]
        assert read_detections(results, truth).image.tolist() == [0, 1, 2]
    # 7 is no line, so these are the numbers of the stems.
    results = [result(7, 0, *box), result(1, 1, *box)]
    found = read_detections(results, truth)
    assert found.image.tolist() == [0, 2] and found.category.tolist() == [0, 1]
    assert analyze(truth, {"a": results}, draws=20).runs["a"]["AP-cat"]["value"] == pytest.approx(
        100
    )


def test_splits(folder):
    (folder / "ImageSets/Main/train.txt").write_text("2\n")
    with pytest.raises(ValueError, match="has the splits 'train', 'val': say which one"):
        read_ground_truth(folder)
    assert read_ground_truth(folder, split="train").num_images == 1
    with pytest.raises(ValueError, match=r"split 'test': .* splits there: 'train', 'val'"):
        read_ground_truth(folder, split="test")
    (folder / "ImageSets/Main/train.txt").write_text("8\n")
    with pytest.raises(ValueError, match=r"8\.xml does not exist"):
        read_ground_truth(folder, split="train")
    with pytest.raises(ValueError, match="has no folder Annotations"):
        read_ground_truth(folder / "JPEGImages")
