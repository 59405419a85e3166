"""A link to nothing among the images: it is found, so that it is named, counted and left out."""

import pytest

from iou_balanced import Predictor
from iou_balanced.inference import predict_files
from iou_balanced.inference.inputs import find_inputs

from .detectors import ROOT, save_weights, small_config, write_images


@pytest.mark.parametrize("pattern", ["in", "in/*.jpg", "in/*"])
def test_it_is_found(tmp_path, pattern):
    write_images(tmp_path / "in", (60, 80))
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/folder.jpg").mkdir()
    found = [x.path.name for x in find_inputs([tmp_path / pattern])]
    assert "gone.jpg" in found and "folder.jpg" not in found


def test_it_is_left_out_and_named(tmp_path):
    write_images(tmp_path / "in", (60, 80))
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    name = "retinanet_small_iou_balanced"
    weights = save_weights(small_config(name), tmp_path / "model.pth")
    predictor = Predictor(str(ROOT / f"configs/Digits/{name}.py"), weights, device="cpu")
    summary = predict_files(predictor, [tmp_path / "in"], tmp_path / "out", progress=False)
    assert summary.num_images == 1 and len(summary.unreadable) == 1
    assert "gone.jpg cannot be read" in summary.unreadable[0]
