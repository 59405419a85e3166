"""The learning rate of every config over the whole of its training."""

import math

import pytest
import torch
from detectron2.config import instantiate
from detectron2.solver import LRMultiplier
from omegaconf import OmegaConf

from .test_configs import FILES, load

RATES = {}
# The beginning of a file's name -> iterations of an epoch, epochs, after which the rate drops; none
# where half a cosine takes it to 0.
SCHEDULES = {
    "COCO/fcos": (7330, 12, ()),
    "COCO_LT/fcos": (6214, 12, ()),  # 99,411 images in batches of 16
    # All images, 118,287 and 99,411, in whole batches of 128
    "COCO/centernet_MNV2_140e_step": (924, 140, (90, 120)),
    "COCO/centernet": (924, 140, ()),
    "COCO_LT/centernet": (776, 140, ()),
    "COCO/ssd": (1833, 120, (80, 110)),  # 117,266 images in batches of 64
    "COCO/": (7330, 12, (8, 11)),  # in batches of 16
    "VOC/ssd": (259, 120, (80, 100)),  # 16,551 images in batches of 64
    "VOC/": (1035, 12, (9,)),  # in batches of 16
    "Cityscapes/": (372, 64, (56,)),  # 2,975 images in batches of 8
}


@pytest.mark.parametrize("file", FILES)
def test_learning_rate(file):
    cfg = load(file)
    multiplier = instantiate(cfg.lr_multiplier)
    length, base = cfg.train.max_iter, cfg.optimizer.lr
    cfg.optimizer.params.model = torch.nn.Linear(2, 2)
    optimizer = instantiate(cfg.optimizer)
    LRMultiplier(optimizer, multiplier, length)
    # Variants have the schedule of their baseline, and a schedule is up to 130,000 numbers.
    key = (str(OmegaConf.to_container(cfg.lr_multiplier, resolve=True)), length, base)
    if key not in RATES:
        RATES[key] = [base * multiplier(i / length) for i in range(length)]
    rates = RATES[key]
    assert optimizer.param_groups[0]["lr"] == rates[0]
    # A warm-up to the full rate, but on VOC with RetinaNet, and no rise after it.
    top = rates.index(max(rates))
    no_warm_up = file.startswith("VOC/retinanet")
    assert no_warm_up or rates[0] < 0.02 * base
    assert rates[top] == pytest.approx(base, rel=0.05)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    key = next((key for key in SCHEDULES if file.startswith(key)), None)
    assert (key is None) == file.startswith(("Digits/", "Photos/"))
    if key is None:
        return
    epoch, epochs, drops = SCHEDULES[key]
    assert length == cfg.train.max_iter == epochs * epoch
    assert cfg.train.eval_period % epoch == cfg.train.checkpointer.period % epoch == 0
    if no_warm_up:
        assert rates[0] == base
    else:
        assert rates[0] == pytest.approx(base * 0.001)  # linear over 500 iterations
        assert rates[250] == pytest.approx(base * (0.001 + 0.999 / 2), rel=1e-3)
        assert rates[500] == pytest.approx(base, rel=1e-9 if drops else 2e-4)
    if not drops:
        for i in (*range(500, length, 500), length - 1):
            cosine = (1 + math.cos(math.pi * i / length)) / 2
            assert rates[i] == pytest.approx(base * cosine, rel=1e-6)
        return
    found = [i for i in range(501, length) if rates[i] != rates[i - 1]]
    assert found == [drop * epoch for drop in drops]
    for i, drop in enumerate(found, start=1):
        assert rates[drop] == pytest.approx(base * 0.1**i, rel=1e-9)
