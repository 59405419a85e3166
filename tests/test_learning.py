"""Whether the detectors learn, from the config file to the metrics."""

import pytest

from iou_balanced.engine import main

from .engine.helpers import ROOT, make_args, read_metrics

NAMES = ("retinanet_small", "ssd_small", "foveabox_small", "faster_rcnn_small")
# Of the config as written, on images that it has not seen: AP50 and AP.
FLOORS = {
    "retinanet_small": (70, 45),
    "ssd_small": (70, 45),
    "foveabox_small": (85, 60),
    "faster_rcnn_small": (75, 50),
}
every_detector = pytest.mark.parametrize("name", NAMES)
both_losses = pytest.mark.parametrize("ending", ["", "_iou_balanced"], ids=["plain", "balanced"])


def train(name, folder, *opts):
    args = make_args(str(ROOT / f"configs/Digits/{name}.py"))
    args.opts = [f"train.output_dir={folder}", "train.device=cpu", "train.log_period=50", *opts]
    main(args)
    records = read_metrics(folder)
    return records[max(records)]


@both_losses
@every_detector
def test_learns_a_few_images_by_heart(name, ending, tmp_path, datasets_root):
    """Chance is an AP50 of about 0: ten classes, and boxes anywhere in the image."""
    metrics = train(
        name + ending,
        tmp_path / "run",
        "datasets.train.num_images=8",
        "datasets.test.split=train",
        "datasets.test.num_images=8",
        "train.max_iter=120",
        "train.eval_period=0",
        "train.best_checkpoint.metric=null",
    )
    assert metrics["bbox/AP50"] > 60
    assert metrics["bbox/AP"] > 30


@pytest.mark.slow
@both_losses
@every_detector
def test_learns_the_digits(name, ending, tmp_path, datasets_root):
    """The config as written, on images that it has not seen."""
    metrics = train(name + ending, tmp_path / "run")
    print({key: round(value, 1) for key, value in metrics.items() if key.startswith("bbox/AP")})
    ap50, ap = FLOORS[name]
    assert metrics["bbox/AP50"] > ap50
    assert metrics["bbox/AP"] > ap
