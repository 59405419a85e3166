"""The command that checks a data set: what it prints, writes and returns."""

import json
import shutil

import pytest
from PIL import Image

from iou_balanced.data import register_coco_json
from iou_balanced.data.check import main
from iou_balanced.data.data_report import check_data_set


def run(capsys, *args):
    status = main([str(a) for a in args])
    return status, capsys.readouterr().out


def test_nothing_to_remark(make_voc, capsys, tmp_path):
    root = make_voc({"a": [("cat", (2, 2, 9, 9))], "b": [("dog", (2, 2, 9, 9))]}, {"x": ["a", "b"]})
    status, text = run(capsys, "--voc-root", root, "--split", "x", "--output", tmp_path / "o.json")
    assert status == 0
    for part in ("'blood_x': 2 images, 2 boxes of 2 classes", "nothing to remark", "accepted"):
        assert part in text
    assert "| cat     |       1 |        1 |" in text
    (report,) = json.loads((tmp_path / "o.json").read_text())
    assert report["refused"] is False and report["findings"] == {}
    assert report["classes"][1] == {"name": "dog", "boxes": 1, "images": 1}


def test_crowds_and_empty_classes_are_no_reason_to_refuse(make_coco, coco_box, capsys):
    json_file, images = make_coco(annotations=[coco_box(1, 7, 9, iscrowd="1"), coco_box(2, 5, 2)])
    status, text = run(capsys, "--json-file", json_file, "--image-root", images)
    assert status == 0
    for part in (
        "1 x crowd region, iscrowd=1",
        "by class: cat 1",
        "1 x class without a box\n    cat",
        "1 x image without boxes",
        "iscrowd: '1'",
    ):
        assert part in text


def test_images_are_opened(make_coco, capsys, tmp_path):
    # Cut off, of another size, turned by EXIF, of 16 bits: the annotations are as they should be.
    names = ["cut.jpg", "small.jpg", "turned.jpg", "wide.png", "good.jpg"]
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)
    ]
    images[1].update(width=40, height=35)
    boxes = [
        {"id": i, "image_id": i, "category_id": 2, "bbox": bbox, "area": 81, "iscrowd": 0}
        for i, bbox in enumerate([[2, 3, 9, 9]] * 5)
    ]
    boxes[2]["bbox"] = [30, 3, 9, 9]
    json_file, root = make_coco(images=images, annotations=boxes)
    exif = Image.Exif()
    exif[274] = 6
    for name in names[:3] + names[4:]:
        size = (20, 15) if name == "small.jpg" else (40, 30)
        kwargs = {"exif": exif} if name == "turned.jpg" else {}
        Image.effect_noise(size, 90).save(root / name, **kwargs)
    Image.new("I;16", (40, 30)).save(root / "wide.png")
    data = (root / "cut.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(data[: len(data) // 2])
    arguments = ["--json-file", json_file, "--image-root", root]
    status, text = run(capsys, *arguments, "--output", tmp_path / "o.json")
    assert status == 1
    for part in (
        "cut.jpg cannot be read (OSError: image file is truncated",
        "40 x 30, but turned.jpg is 30 x 40 (EXIF orientation 6, stored as 40 x 30)",
        "40 x 35, but small.jpg is 20 x 15",
        "wide.png: mode I;16",
        "refused",
    ):
        assert part in text
    (report,) = json.loads((tmp_path / "o.json").read_text())
    counts = {kind: finding["count"] for kind, finding in report["findings"].items()}
    # The boxes fit the small image too, and not the turned one. The class "cat" has no box.
    expected = {"unreadable_image": 1, "other_frame": 1, "wrong_size": 1, "wide_pixels": 1}
    assert counts == {**expected, "empty_class": 1}
    # Without opening them only what has to be looked at in any case is known.
    assert "cut.jpg" not in run(capsys, *arguments, "--no-images")[1]


def test_a_file_that_contradicts_itself(make_coco, coco_box, capsys, tmp_path):
    files = make_coco(
        images=[{"id": 1, "file_name": n, "width": 40, "height": 30} for n in ("a.png", "b.png")]
    )
    output = tmp_path / "o.json"
    arguments = ["--json-file", files[0], "--image-root", files[1], "--output", output]
    status, text = run(capsys, *arguments)
    assert status == 1
    assert text.startswith("error: ") and "image id 1 twice, for a.png and for b.png" in text
    assert "twice" in json.loads(output.read_text())[0]["error"]


def test_data_of_a_config(make_voc, capsys, tmp_path):
    root = make_voc(
        {"a": [("cat", (2, 2, 9, 9))], "b": [("Cat", (2, 2, 9, 9))]}, {"x": ["a"], "y": ["b"]}
    )
    config = tmp_path / "config.py"
    config.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts\n"
        "from iou_balanced.data import register_voc_dir\n"
        "from torch.nn import Linear\n"
        "def names(split, classes):\n"
        f"    names = L(register_voc_dir)(root={str(root)!r}, split=split, class_names=classes)\n"
        "    dataset = L(get_detection_dataset_dicts)(names=names)\n"
        "    return L(build_detection_train_loader)(dataset=dataset, mapper=L(Linear)())\n"
        "dataloader = dict(train=names('x', ['cat']), test=names('y', ['Cat']))\n"
        "model = L(Linear)(in_features=1, out_features=1)\n"
        "train = dict()\n"
    )
    status, text = run(capsys, "--config-file", config)
    # The names are in one folder, where each is in the list that the other misses.
    assert status == 1
    assert "train: data set 'blood_x': 1 images, 1 boxes" in text
    assert "test: data set 'blood_y': 1 images, 1 boxes" in text
    assert "differ in upper and lower case or blanks only: 'Cat' and 'cat'" in text
    status, text = run(
        capsys,
        "--config-file",
        config,
        "dataloader.test.dataset.names.class_names=[cat]",
        "dataloader.test.dataset.names.name=z",
    )
    assert status == 1 and "no usable box left: 1 x box of an unknown class" in text


def test_registered_by_somebody_else(make_coco):
    from detectron2.data.datasets import register_coco_instances

    json_file, images = make_coco()
    register_coco_instances("theirs", {}, str(json_file), str(images))
    report = check_data_set("theirs")
    assert report.boxes == {"dog": 1, "cat": 1} and not report.is_refused
    shutil.rmtree(images)
    report = check_data_set("theirs")
    assert report.findings.counts == {"missing_image": 2} and report.is_refused


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "one of the arguments"),
        (["--json-file", "a.json"], "--json-file needs --image-root"),
        (["--voc-root", "a"], "--voc-root needs --split"),
        (["--name", "a", "x=1"], "x=1: overrides go with --config-file"),
    ],
)
def test_arguments(capsys, args, message):
    with pytest.raises(SystemExit):
        main(args)
    assert message in capsys.readouterr().err


def test_what_is_not_there(capsys, tmp_path):
    status, text = run(capsys, "--json-file", tmp_path / "no.json", "--image-root", tmp_path)
    assert status == 1 and "no.json does not exist" in text
    status, text = run(capsys, "--name", "no_such_data_set")
    assert status == 1 and "no_such_data_set" in text


def test_a_config_that_leaves_the_folder_to_its_user(capsys):
    """Its number of classes is no matter of the data."""
    status, text = run(capsys, "--config-file", "configs/Photos/fcos_lite0.py")
    assert status == 1 and text.startswith("error: datasets.train.root has no value: ")
    assert "num_classes" not in text


def test_the_loader_says_the_same(make_coco, coco_box):
    # One mechanism: what the command counts is what training is told.
    json_file, images = make_coco(annotations=[coco_box(1, 7, 9, (5, 5, 0, 9)), coco_box(2, 5, 2)])
    name = register_coco_json(name="pets", json_file=str(json_file), image_root=str(images))
    report = check_data_set(name, progress=False, workers=1)
    assert report.findings.counts == {"no_area": 1, "empty_class": 1, "no_boxes": 1}
    assert report.is_refused and report.boxes == {"dog": 1}


def test_a_name_that_nobody_registered(capsys):
    status, text = run(capsys, "--name", "nope")
    assert status == 1 and "no data set is registered as 'nope'" in text


@pytest.mark.parametrize("text", ["A: [", "FOO: !!python/name:x", "VERSION: 2\nDATASETS: 5\n"])
def test_a_yaml_config_that_cannot_be_read(capsys, tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    status, out = run(capsys, "--config-file", path)
    assert status == 1 and out.startswith(f"error: {path} cannot be read with []: ")
    assert run(capsys, "--config-file", tmp_path / "no.yaml")[0] == 1


def test_findings_are_there_where_nothing_is_left(make_coco, coco_box, capsys, tmp_path):
    files = make_coco(annotations=[coco_box(1, 7, 9, (5, 5, 0, 9))])
    output = tmp_path / "o.json"
    status, text = run(
        capsys, "--json-file", files[0], "--image-root", files[1], "--output", output
    )
    assert status == 1 and "error: data set" in text and "no usable box left" in text
    (report,) = json.loads(output.read_text())
    assert report["findings"]["no_area"]["count"] == 1 and "no usable box" in report["error"]


def test_the_same_arguments_as_the_register_functions(make_coco, coco_box, make_voc, capsys):
    files = make_coco(annotations=[coco_box(1, 7, 9, (30, 20, 38, 28)), coco_box(2, 5, 2)])
    Image.new("I;16", (40, 30)).save(files[1] / "b.png")
    arguments = ["--json-file", files[0], "--image-root", files[1]]
    text = run(capsys, *arguments, "--bbox-format", "xyxy", "--pixel-range", "0,4095")[1]
    assert "1 x image of more than 8 bits (scaled" in text and "outside" not in text
    root = make_voc({"a": [("cat", (2, 2, 9, 9), 1), ("dog", (2, 2, 9, 9))]}, {"x": ["a"]})
    text = run(capsys, "--voc-root", root, "--split", "x", "--difficult", "drop")[1]
    assert "1 x difficult object" in text
