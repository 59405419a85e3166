"""tools/predict.py: what it takes, what it writes, and how it fails."""

import csv
import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from iou_balanced import Predictor
from iou_balanced.engine import UserError
from iou_balanced.inference import predict_files, video
from iou_balanced.inference.inputs import find_inputs, picture_names

from .detectors import DIGITS, ROOT, save_weights, small_config, write_images

CONFIG = str(ROOT / "configs/Digits/retinanet_small_iou_balanced.py")
LOW = "model.test_score_thresh=0.0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    cfg = small_config("retinanet_small_iou_balanced")
    return save_weights(cfg, tmp_path_factory.mktemp("w") / "model.pth")


@pytest.fixture(scope="module")
def predictor(weights):
    return Predictor(CONFIG, weights, device="cpu", overrides=[LOW], batch_size=2)


@pytest.fixture
def predict(weights, monkeypatch, tmp_path):
    """Runs tools/predict.py in this process; returns its exit status, or its message."""

    def run(*arguments, output=tmp_path / "out"):
        words = ["--config-file", CONFIG, "--weights", weights, "--device", "cpu", LOW]
        words += ["--output", str(output), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["predict.py", *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools/predict.py"), run_name="__main__")
        return end.value.code

    return run


def read(folder):
    """detections.json, images.json and the rows of detections.csv."""
    load = [json.loads((folder / f"{name}.json").read_text()) for name in ("detections", "images")]
    return *load, list(csv.DictReader((folder / "detections.csv").open()))


def test_what_is_written(predict, predictor, tmp_path, capsys):
    files = write_images(tmp_path / "photos", (60, 80), (80, 60))
    assert predict(tmp_path / "photos", "--score", "0.2") == 0
    assert "2 images, " in (out := capsys.readouterr().out) and "images/s" in out
    detections, images, rows = read(tmp_path / "out")
    assert images["categories"] == [{"id": i + 1, "name": name} for i, name in enumerate(DIGITS)]
    assert [(x["id"], x["file_name"], x["width"], x["height"]) for x in images["images"]] == [
        (1, str(files[0]), 80, 60),
        (2, str(files[1]), 60, 80),
    ]
    expected = []
    for i, file in enumerate(files, start=1):
        x = predictor(file)["instances"]
        x = x[x.scores >= 0.2]
        assert len(x) > 0
        for box, score, index in zip(
            x.pred_boxes.tensor.tolist(), x.scores.tolist(), x.pred_classes.tolist(), strict=True
        ):
            expected.append((i, index + 1, box, score))
    assert len(detections) == len(rows) == len(expected)
    for (i, category, box, score), result, row in zip(expected, detections, rows, strict=True):
        x0, y0, x1, y1 = box
        assert (result["image_id"], result["category_id"]) == (i, category)
        assert result["score"] == pytest.approx(score, abs=1e-7)
        assert result["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-4)
        assert row["file"] == str(files[i - 1]) and row["class"] == DIGITS[category - 1]
        assert [float(row[k]) for k in ("x0", "y0", "x1", "y1")] == pytest.approx(box)
        assert row["picture"] == f"pictures/{i - 1}.jpg"
    # What COCO's own tools take.
    ground_truth = COCO(str(tmp_path / "out/images.json"))
    assert len(ground_truth.loadRes(detections).anns) == len(detections)
    drawn = np.asarray(Image.open(tmp_path / "out/pictures/1.jpg"))
    original = np.asarray(Image.open(files[1]))
    assert drawn.shape == original.shape and np.abs(drawn.astype(int) - original).max() > 100


def test_no_pictures(predict, tmp_path):
    (file,) = write_images(tmp_path / "photos", (60, 80))
    assert predict("--no-draw", file) == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        "detections.csv",
        "detections.json",
        "images.json",
    ]


def test_an_unreadable_image_is_named_counted_and_left_out(predict, tmp_path, capsys):
    files = write_images(tmp_path / "photos", (60, 80), (60, 80))
    half = files[1].read_bytes()[:200]
    (tmp_path / "photos/half.png").write_bytes(half)
    (tmp_path / "photos/text.jpg").write_text("no image")
    assert predict(tmp_path / "photos", "--batch", "2") == 1
    captured = capsys.readouterr()
    for name in ("half.png", "text.jpg"):
        assert f"photos/{name} cannot be read" in captured.err
    assert "2 could not be read" in captured.err and "2 images, " in captured.out
    _, images, _ = read(tmp_path / "out")
    assert [Path(x["file_name"]).name for x in images["images"]] == ["0.png", "1.png"]


def test_nothing_is_overwritten(predict, tmp_path):
    (file,) = write_images(tmp_path / "photos", (60, 80))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/detections.json").write_text("precious")
    (tmp_path / "out/notes.txt").write_text("precious")
    assert "out is not empty: give another folder, or --overwrite" in predict(file)
    assert (tmp_path / "out/detections.json").read_text() == "precious"
    assert predict("--overwrite", file) == 0
    assert (tmp_path / "out/notes.txt").read_text() == "precious"
    assert json.loads((tmp_path / "out/detections.json").read_text())


def test_an_output_that_is_a_file(predict, tmp_path):
    (file,) = write_images(tmp_path / "photos", (60, 80))
    (tmp_path / "taken").write_text("precious")
    assert "is no folder that can be written to" in predict(file, output=tmp_path / "taken")


def test_inputs_that_are_not_there_are_all_named(predict, tmp_path):
    (tmp_path / "empty/deeper").mkdir(parents=True)
    message = predict(tmp_path / "nope.jpg", tmp_path / "empty", tmp_path / "*.gif")
    assert "no file" in message and "nope.jpg" in message and "*.gif" in message
    assert "empty has no image and no video; for the folders in it give" in message
    assert not (tmp_path / "out").exists()


def test_folders_and_globs(tmp_path):
    write_images(tmp_path / "a", (4, 4), (4, 4))
    write_images(tmp_path / "a/b", (4, 4))
    (tmp_path / "a/readme.txt").write_text("")
    (tmp_path / "a/clip.MP4").write_text("")

    def names(*patterns):
        return [str(x.path.relative_to(tmp_path)) for x in find_inputs(patterns)]

    assert names(tmp_path / "a") == ["a/0.png", "a/1.png", "a/clip.MP4"]
    assert names(f"{tmp_path}/**/*.png") == ["a/0.png", "a/1.png", "a/b/0.png"]
    assert names(f"{tmp_path}/a/*") == ["a/0.png", "a/1.png", "a/clip.MP4"]
    assert names(tmp_path / "a/1.png", tmp_path / "a") == ["a/1.png", "a/0.png", "a/clip.MP4"]
    assert [x.is_video for x in find_inputs([tmp_path / "a"])] == [False, False, True]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["x/1.png", "x/2.jpg"], ["1.jpg", "2.jpg"]),
        (["x/1.png", "y/1.png"], ["x/1.jpg", "y/1.jpg"]),
        (["x/1.png", "x/1.jpg", "x/2.png"], ["1_png.jpg", "1_jpg.jpg", "2.jpg"]),
        (["x/A.png", "x/a.jpg"], ["A_png.jpg", "a_jpg.jpg"]),
        (["x/1.png", "x/1.jpg", "x/1_png.bmp"], ["1_png_2.jpg", "1_jpg.jpg", "1_png.jpg"]),
    ],
)
def test_names_of_pictures(files, expected, tmp_path):
    paths = [tmp_path / file for file in files]
    names = picture_names(paths, [".jpg"] * len(paths))
    assert [name.as_posix() for name in names] == expected


def test_the_same_stem_twice(predictor, tmp_path):
    for folder in ("a", "b"):
        write_images(tmp_path / "photos" / folder, (60, 80))
    shutil.copy(tmp_path / "photos/a/0.png", tmp_path / "photos/a/0.bmp")
    predict_files(predictor, [f"{tmp_path}/photos/*/*.*"], tmp_path / "out", progress=False)
    found = sorted(str(x.relative_to(tmp_path / "out/pictures")) for x in tmp_path.rglob("*.jpg"))
    assert found == ["a/0_bmp.jpg", "a/0_png.jpg", "b/0.jpg"]


def coco_file(tmp_path, categories=DIGITS[::-1]):
    data = {
        "images": [{"id": 77, "file_name": "photos/0.png", "width": 80, "height": 60}],
        "categories": [{"id": 100 + i, "name": name} for i, name in enumerate(categories)],
    }
    (tmp_path / "gt.json").write_text(json.dumps(data))
    return tmp_path / "gt.json"


def test_ids_of_a_ground_truth(predict, predictor, tmp_path):
    (file,) = write_images(tmp_path / "photos", (60, 80))
    assert predict(file, "--ids-from", coco_file(tmp_path)) == 0
    detections, _, rows = read(tmp_path / "out")
    assert {x["image_id"] for x in detections} == {77}
    assert [x["category_id"] for x in detections] == [109 - int(row["class"]) for row in rows]


def test_a_ground_truth_of_something_else(predict, tmp_path):
    files = write_images(tmp_path / "photos", (60, 80), (60, 80))
    message = predict(*files, "--ids-from", coco_file(tmp_path))
    assert "has no images with the file_name of" in message and "1.png" in message
    message = predict(files[0], "--ids-from", coco_file(tmp_path, ["cat"]))
    assert "has no category '0', which the model has" in message
    (tmp_path / "gt.json").write_text("[]")
    assert "gt.json is no COCO file" in predict(files[0], "--ids-from", tmp_path / "gt.json")


def test_results_so_far_when_it_breaks(predictor, tmp_path, monkeypatch):
    files = write_images(tmp_path / "photos", *[(60, 80)] * 5)
    real, calls = Predictor.run, []

    def run(self, inputs):
        calls.append(len(inputs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, inputs)

    monkeypatch.setattr(Predictor, "run", run)
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, files, tmp_path / "out", progress=False)
    assert len(read(tmp_path / "out")[1]["images"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.nope=1"], "unknown key model.nope"),
        (["--score", "30"], r"Expected argument `score_thresh` in [0, 1]"),
        (["--batch", "0"], "Expected argument `batch_size`"),
        (["--weights", "nope.pth"], "weights=nope.pth cannot be had"),
        (["--config-file", "nope.py"], "config file nope.py does not exist"),
    ],
)
def test_mistakes_are_one_line(predict, tmp_path, arguments, message):
    (file,) = write_images(tmp_path / "photos", (60, 80))
    error = predict(file, *arguments)
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


# Videos.


def write_video(path, num_frames=3):
    pixels = np.random.default_rng(0).integers(0, 256, (num_frames, 64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in pixels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def test_a_video(predictor, tmp_path):
    write_video(tmp_path / "clip.mp4")
    (image,) = write_images(tmp_path, (60, 80))
    files = [image, tmp_path / "clip.mp4"]
    summary = predict_files(predictor, files, tmp_path / "out", progress=False)
    assert summary.num_images == 4 and not summary.unreadable
    _, images, rows = read(tmp_path / "out")
    assert [(x["id"], x.get("frame")) for x in images["images"]] == [
        (1, None),
        (2, 0),
        (3, 1),
        (4, 2),
    ]
    assert {row["frame"] for row in rows} == {"", "0", "1", "2"}
    frames = list(video.read_frames(tmp_path / "out/pictures/clip.mp4"))
    assert len(frames) == 3 and frames[0].shape == (64, 96, 3)
    assert video._rate(tmp_path / "out/pictures/clip.mp4") == 10


def test_a_damaged_video_is_left_out(predictor, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    (image,) = write_images(tmp_path, (60, 80))
    files = [tmp_path / "clip.mp4", image]
    summary = predict_files(predictor, files, tmp_path / "out", progress=False)
    assert summary.num_images == 1
    assert len(summary.unreadable) == 1 and "clip.mp4 cannot be read" in summary.unreadable[0]


def test_a_video_needs_a_package(predictor, tmp_path, monkeypatch):
    for name in ("av", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs PyAV or OpenCV.*\[video\]"):
        predict_files(predictor, [tmp_path / "clip.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
