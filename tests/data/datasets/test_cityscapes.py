"""The official folders as COCO JSON: what is written, when it is written anew, what is missing."""

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from pycocotools.coco import COCO

from iou_balanced.data import export_cityscapes, register_cityscapes
from iou_balanced.data.cityscapes_export import main
from iou_balanced.data.datasets import cityscapes

from ...processes import run_in_two_processes
from .cityscapes_tree import SIZE, TRAIN, VAL, make_cityscapes, polygon_file, rectangle

CLASSES = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    root = make_cityscapes(tmp_path / "cityscapes", "train", TRAIN)
    return make_cityscapes(root, "val", VAL)


@pytest.fixture
def exports(monkeypatch):
    """The paths that were written."""
    written = []
    original = cityscapes._export

    def export(files, root, path, **kwargs):
        original(files, root, path, **kwargs)
        written.append(path)

    monkeypatch.setattr(cityscapes, "_export", export)
    return written


def test_the_file(root):
    path = export_cityscapes(root=str(root), split="train")
    data = json.loads(Path(path).read_text())
    stems = ["aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000313"]
    assert data["images"] == [
        {
            "id": i,
            "file_name": f"{stem.split('_')[0]}/{stem}_leftImg8bit.png",
            "height": SIZE[1],
            "width": SIZE[0],
        }
        for i, stem in enumerate(stems, start=1)
    ]
    assert [c["name"] for c in data["categories"]] == CLASSES
    annotations = data["annotations"]
    assert [a["id"] for a in annotations] == list(range(1, 9))
    assert [a["image_id"] for a in annotations] == [1] * 7 + [3]
    assert [a["iscrowd"] for a in annotations] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert annotations[0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 26,
        "bbox": [10, 20, 30, 40],
        "area": 1200,
        "iscrowd": 0,
    }
    assert annotations[-1]["bbox"] == [10, 10, 41, 41]
    assert len(COCO(path).getAnnIds(catIds=[24], iscrowd=True)) == 2


def test_registered(root):
    name = register_cityscapes(root=str(root), split="train")
    assert name == "cityscapes_train" == register_cityscapes(root=f"{root}/", split="train")
    meta = MetadataCatalog.get(name)
    assert meta.thing_classes == CLASSES and meta.evaluator_type == "coco"
    dicts = DatasetCatalog.get(name)
    assert [len(d["annotations"]) for d in dicts] == [7, 0, 1]
    assert all(Path(d["file_name"]).is_file() for d in dicts)
    assert [a["category_id"] for a in dicts[0]["annotations"]] == [2, 2, 0, 1, 0, 0, 3]
    # Training leaves out images without a box, and its mapper the crowd.
    assert len(get_detection_dataset_dicts(name)) == 2
    with pytest.raises(ValueError, match=r"'cityscapes_train' is registered already with json_fil"):
        register_cityscapes(root=str(root), split="train", groups="class")
    assert register_cityscapes(root=str(root), split="train", groups="class", name="b") == "b"


def test_the_default_folder(root, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root.parent))
    image_root = MetadataCatalog.get(register_cityscapes(split="val")).image_root
    assert image_root == str(root / "leftImg8bit/val")


def test_a_split_without_annotations(root):
    # As in the official archive, whose test images have polygons of ego vehicle and the like.
    make_cityscapes(root, "test", {"berlin_000000_000019": [rectangle("ego vehicle", 0, 99, 9, 9)]})
    (record,) = DatasetCatalog.get(register_cityscapes(root=root, split="test"))
    assert "annotations" not in record


def test_it_is_made_once(root, exports):
    path = export_cityscapes(root=root, split="val")
    assert Path(path).parent == root / "iou_balanced"
    assert export_cityscapes(root=root, split="val") == path
    assert exports == [path]


def test_a_cached_file_that_was_cut(root):
    path = export_cityscapes(root=root, split="val")
    text = Path(path).read_text()
    Path(path).write_text(text[:-9])
    with pytest.raises(FileExistsError, match=f"^{path} is not what was written to it: delete it"):
        export_cityscapes(root=root, split="val")
    assert Path(path).read_text() == text[:-9]


def change_size(file):
    content = json.loads(file.read_text())
    content["objects"].append(rectangle("bus", 5, 5, 30, 30))
    file.write_text(json.dumps(content))


def change_time(file):
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def add_image(file):
    make_cityscapes(file.parents[3], "val", {"munster_000000_000019": []})


def remove_image(file):
    file.unlink()
    file = Path(str(file).replace("gtFine", "leftImg8bit"))
    Path(str(file).replace("_polygons.json", ".png")).unlink()


@pytest.mark.parametrize("change", [change_size, change_time, add_image, remove_image])
def test_changed_files_are_exported_anew(root, exports, change):
    path = export_cityscapes(root=root, split="val")
    change(polygon_file(root, "val", "lindau_000000_000019"))
    new = export_cityscapes(root=root, split="val")
    assert exports == [path, new] and path != new
    count = {change_size: (2, 7), change_time: (2, 6), add_image: (3, 6), remove_image: (1, 3)}
    data = json.loads(Path(new).read_text())
    assert (len(data["images"]), len(data["annotations"])) == count[change]


def test_other_arguments_and_versions_are_other_files(root, exports, monkeypatch):
    paths = [
        export_cityscapes(root=root, split="val"),
        export_cityscapes(root=root, split="train"),
        export_cityscapes(root=root, split="val", boxes="polygon"),
        export_cityscapes(root=root, split="val", groups="class"),
    ]
    monkeypatch.setattr(cityscapes, "FORMAT_VERSION", cityscapes.FORMAT_VERSION + 1)
    paths.append(export_cityscapes(root=root, split="val"))
    assert exports == paths and len(set(paths)) == 5


def test_files_that_change_during_training(root, exports):
    register_cityscapes(root=root, split="val")
    change_size(polygon_file(root, "val", "lindau_000000_000019"))
    register_cityscapes(root=root, split="val")  # each loader and evaluator asks again
    assert len(exports) == 1


def test_a_data_folder_that_cannot_be_written(root, exports, tmp_path):
    (root / "iou_balanced").write_text("in the way of a folder, for any user")
    path = export_cityscapes(root=root, split="val")
    assert Path(path).parent == tmp_path / "iopath/iou_balanced/cityscapes"
    assert export_cityscapes(root=root, split="val") == path and len(exports) == 1


def test_no_place_for_the_cache(root, tmp_path):
    for folder in (root / "iou_balanced", tmp_path / "iopath"):
        folder.write_text("")
    with pytest.raises(OSError, match=r"can be written nowhere: .*cityscapes/iou.*; .*iopath"):
        export_cityscapes(root=root, split="val")


def _export_slowly(folder, rank):
    """One of two processes that want the file at once; each export takes a second and is noted."""
    original = cityscapes._export

    def export(*args, **kwargs):
        with open(f"{folder}/exports.txt", "a") as f:
            f.write(f"{rank}\n")
        time.sleep(1)
        original(*args, **kwargs)

    cityscapes._export = export
    dist.barrier()
    path = export_cityscapes(root=f"{folder}/cityscapes", split="val")
    return path, len(json.loads(Path(path).read_text())["images"])


def test_two_processes_make_it_once(root, tmp_path):
    (tmp_path / "processes").mkdir()
    results = run_in_two_processes(partial(_export_slowly, str(tmp_path)), tmp_path / "processes")
    assert results[0] == results[1] and results[0][1] == 2
    assert len((tmp_path / "exports.txt").read_text().split()) == 1


@pytest.mark.parametrize("found", ["nothing", "images", "polygons"])
def test_missing_files_are_named_with_the_way_to_get_them(tmp_path, found):
    folder = {"images": "leftImg8bit", "polygons": "gtFine"}.get(found)
    root = tmp_path / "here"
    if folder:
        make_cityscapes(tmp_path / "all", "val", VAL)
        root.mkdir()
        (tmp_path / "all" / folder).rename(root / folder)
    with pytest.raises(FileNotFoundError) as error:
        register_cityscapes(root=root, split="val")
    message = str(error.value)
    images, masks = (2 if found == x else 0 for x in ("images", "polygons"))
    for part in (
        f"{root}/leftImg8bit/val/<city>/<city>_*_leftImg8bit.png: found {images}",
        f"{root}/gtFine/val/<city>/<city>_*_gtFine_polygons.json: found {masks}",
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
        "https://www.cityscapes-dataset.com/downloads/",
        f"Unpack both in {root}",
    ):
        assert part in message, part


def test_an_incomplete_copy(root):
    stem = "val/lindau/lindau_000000_000019"
    image = root / f"leftImg8bit/{stem}_leftImg8bit.png"
    image.rename(image.with_name("._lindau_000000_000020_leftImg8bit.png"))  # not taken for one
    with pytest.raises(FileNotFoundError, match=rf"missing are 1, first {image}\n") as error:
        export_cityscapes(root=root, split="val")
    assert "leftImg8bit.png: found 1\n" in str(error.value)
    image.write_bytes(b"")
    (root / f"gtFine/{stem}_gtFine_polygons.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"1, first {root}/gtFine/{stem}_gtFine_poly"):
        export_cityscapes(root=root, split="val")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"imgWidth": 9, "imgHeight": 9}'])
def test_a_file_that_is_no_annotation(root, content):
    file = polygon_file(root, "val", "lindau_000000_000019")
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file} is no Cityscapes annotation"):
        export_cityscapes(root=root, split="val")
    assert not list((root / "iou_balanced").glob("*.json"))


@pytest.mark.parametrize(
    ("argument", "value"), [("split", "demo"), ("boxes", "tight"), ("groups", "all")]
)
def test_bad_arguments(root, argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` to be one of .*, but got '{value}'"):
        export_cityscapes(**{"root": root, "split": "val", argument: value})


def test_command(root, tmp_path, capsys):
    output = tmp_path / "out" / "val.json"
    arguments = ["--root", str(root), "--split", "val"]
    main([*arguments, "--output", str(output), "--groups", "class"])
    assert capsys.readouterr().out == f"{output}\n"
    assert len(json.loads(output.read_text())["annotations"]) == 5  # two groups as one
    main(arguments)
    assert Path(capsys.readouterr().out.strip()).parent == root / "iou_balanced"
    with pytest.raises(SystemExit, match="is not complete"):
        main([*arguments[2:], "--root", str(tmp_path)])
