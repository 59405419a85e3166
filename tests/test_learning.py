"""Whether the detectors learn, from the config file to the metrics."""

import pytest

from iou_balanced.engine import main

from .engine.helpers import BASELINE, CONFIG, make_args, read_metrics

BOTH = pytest.mark.parametrize("config", [BASELINE, CONFIG], ids=["baseline", "balanced"])


def train(config, folder, *opts):
    args = make_args(config)
    args.opts = [f"train.output_dir={folder}", "train.device=cpu", "train.log_period=50", *opts]
    main(args)
    records = read_metrics(folder)
    return records[max(records)]


@BOTH
def test_learns_a_few_images_by_heart(config, tmp_path, datasets_root):
    """Chance is an AP50 of about 0: ten classes, and boxes anywhere in the image."""
    metrics = train(
        config,
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
@BOTH
def test_learns_the_digits(config, tmp_path, datasets_root):
    """The config as written, on images that it has not seen."""
    metrics = train(config, tmp_path / "run")
    print({key: round(value, 1) for key, value in metrics.items() if key.startswith("bbox/AP")})
    assert metrics["bbox/AP50"] > 70
    assert metrics["bbox/AP"] > 45
