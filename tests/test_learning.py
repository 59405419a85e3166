"""Whether the detectors learn, from the config file to the metrics."""

import pytest

from iou_balanced.engine import main

from .engine.helpers import ROOT, make_args, read_metrics

NAMES = ("retinanet_small", "ssd_small", "foveabox_small", "faster_rcnn_small")
CONFIGS = [f"{name}{ending}" for name in NAMES for ending in ("", "_iou_balanced")]
LONG_TAIL = {  # iterations, and floors as below, of the runs that docs/results.md reports
    "fcos_small_long_tail_bofl": (600, 50, 30),
    "retinanet_small_long_tail_bofl": (1000, 30, 15),
    "centernet_small_long_tail_bofl": (1000, 50, 25),
}
# Of the config as written, on images that it has not seen: AP50 and AP.
FLOORS = {
    "retinanet_small": (70, 45),
    "ssd_small": (70, 45),
    "foveabox_small": (85, 60),
    "faster_rcnn_small": (75, 50),
}
EVERY = [*CONFIGS, "fcos_small", "centernet_small", *LONG_TAIL]


def train(name, folder, *opts):
    args = make_args(str(ROOT / f"configs/Digits/{name}.py"))
    args.opts = [f"train.output_dir={folder}", "train.device=cpu", "train.log_period=50"]
    args.opts += ["train.report=False", *opts]
    main(args)
    records = read_metrics(folder)
    return records[max(records)]


@pytest.mark.parametrize("config", EVERY)
def test_learns_a_few_images_by_heart(config, tmp_path, datasets_root):
    """Chance is an AP50 of about 0: ten classes, and boxes anywhere in the image."""
    same_images, smaller_batch = ["datasets.test.split=train"], []
    if config in CONFIGS:
        smaller_batch = ["dataloader.train.total_batch_size=4", "train.reference_batch_size=null"]
    if "long_tail" in config:
        same_images += ["datasets.test.long_tail=True", "datasets.test.imbalance=100"]
    metrics = train(
        config,
        tmp_path / "run",
        *same_images,
        "datasets.train.num_images=8",
        "datasets.test.num_images=8",
        "datasets.train.image_size=64",
        "datasets.test.image_size=64",
        *smaller_batch,
        "train.max_iter=100",
        "train.eval_period=0",
        "train.best_checkpoint.metric=null",
    )
    assert metrics["bbox/AP50"] > 60
    assert metrics["bbox/AP"] > 30


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_learns_the_digits(config, tmp_path, datasets_root):
    """The config as written, on images that it has not seen."""
    metrics = train(config, tmp_path / "run")
    print({key: round(value, 1) for key, value in metrics.items() if key.startswith("bbox/AP")})
    ap50, ap = FLOORS[config.removesuffix("_iou_balanced")]
    assert metrics["bbox/AP50"] > ap50
    assert metrics["bbox/AP"] > ap


@pytest.mark.slow
@pytest.mark.parametrize("config", LONG_TAIL)
def test_learns_the_digits_from_a_long_tail(config, tmp_path, datasets_root):
    """Smaller images, and fewer iterations than the config has; a balanced test set."""
    iterations, ap50, ap = LONG_TAIL[config]
    metrics = train(
        config,
        tmp_path / "run",
        "datasets.train.image_size=96",
        "datasets.test.image_size=96",
        f"train.max_iter={iterations}",
        f"train.eval_period={iterations}",
    )
    print({key: round(value, 1) for key, value in metrics.items() if key.startswith("bbox/AP")})
    assert metrics["bbox/AP50"] > ap50
    assert metrics["bbox/AP"] > ap
    assert metrics["bbox/AP_head"] > metrics["bbox/AP_tail"] > 0.3 * metrics["bbox/AP_head"]
