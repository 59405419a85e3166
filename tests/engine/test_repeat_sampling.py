"""Repeat-factor sampling by one override, and its numbers beside the class weights."""

import itertools
import math
from collections import Counter

import pytest
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler

from iou_balanced.data import ClassCounts
from iou_balanced.engine import UserError
from iou_balanced.engine.class_balance import ClassBalanceHook
from iou_balanced.engine.loader import build_train_loader, read_train_dataset
from iou_balanced.engine.repeat_sampling import repeat_columns, repeat_factors, repeat_sampler
from iou_balanced.losses import ClassBalanced

from .helpers import tiny_config


def image(*classes):
    return {"annotations": [{"category_id": c} for c in classes]}


# Class 0 is in 3 of 4 images and class 1 in 1 of 4.
IMAGES = [image(0), image(0, 0), image(0, 1), image()]
NAMES = ("often", "rare")


def test_factors_by_hand():
    # t = 1: sqrt(1 / 0.75) = 1.1547 and sqrt(1 / 0.25) = 2; the third image has both.
    factors = repeat_factors(IMAGES, 1.0)
    torch.testing.assert_close(factors, torch.tensor([1.1547, 1.1547, 2.0, 1.0]), rtol=1e-4, atol=0)
    assert repeat_factors(IMAGES, 0.25).tolist() == [1.0] * 4


def test_it_is_detectron2s_stream_which_can_be_entered_anywhere():
    stock = RepeatFactorTrainingSampler(repeat_factors(IMAGES, 1.0), seed=3)
    expected = list(itertools.islice(stock, 200))
    assert list(itertools.islice(repeat_sampler(IMAGES, 1.0, seed=3), 200)) == expected
    late = list(itertools.islice(repeat_sampler(IMAGES, 1.0, seed=3, start=77), 100))
    assert late == expected[77:177]
    shown = Counter(expected)
    assert shown[2] > 1.5 * shown[3]


def test_columns_by_hand(log):
    counts = ClassCounts.from_dicts(IMAGES, NAMES)
    columns = repeat_columns(IMAGES, 1.0, counts)
    assert columns["repeat"] == pytest.approx([math.sqrt(4 / 3), 2.0])
    # Class 0: 1.15 + 2 * 1.15 + 2 = 5.46; class 1: 2.
    assert columns["instances an epoch"] == [5.0, 2.0]
    assert "train.repeat_threshold=1: an epoch has 5 images on average in the place of 4" in log()


def test_difficult_boxes_count_for_none_of_the_numbers_or_for_all():
    """Of ten images six show class 1, five of them by a difficult box alone."""
    images = [image(0) for _ in range(4)] + [image(0, 1) for _ in range(6)]
    for record in images[4:9]:
        record["annotations"][1]["difficult"] = 1
    factors = repeat_factors(images, 0.5, ignore_difficult=True)
    assert factors.tolist() == pytest.approx([1.0] * 9 + [math.sqrt(5)])
    counts = ClassCounts.from_dicts(images, NAMES, ignore_difficult=True)
    columns = repeat_columns(images, 0.5, counts, ignore_difficult=True)
    assert columns["repeat"] == pytest.approx([1.0, math.sqrt(5)])
    assert columns["instances an epoch"] == [11.0, 2.0]  # 9 + 2.24, and 2.24
    assert repeat_factors(images, 0.5).tolist() == [1.0] * 10
    counts = ClassCounts.from_dicts(images, NAMES)
    columns = repeat_columns(images, 0.5, counts)
    assert columns == {"repeat": [1.0, 1.0], "instances an epoch": [10.0, 6.0]}


def test_a_crowd_shows_its_class_as_detectron2_has_it():
    images = [image(0), image(0), image(0), image(1)]
    images[3]["annotations"][0]["iscrowd"] = 1
    columns = repeat_columns(images, 1.0, ClassCounts.from_dicts(images, NAMES))
    assert columns["repeat"] == pytest.approx([math.sqrt(4 / 3), 2.0])
    assert columns["instances an epoch"] == [3.0, 0.0]


def test_the_loader_leaves_out_what_the_mapper_does():
    cfg = tiny_config("train.repeat_threshold=1.0", "train.seed=5")
    cfg.dataloader.train.mapper = {
        "_target_": "iou_balanced.data.BoxAwareDatasetMapper",
        **{k: v for k, v in cfg.dataloader.train.mapper.items() if k != "_target_"},
        "ignore_difficult": True,
    }
    dataset = read_train_dataset(cfg)
    for record in dataset[1:]:
        for a in record["annotations"]:
            a["difficult"] = 1
    expected = repeat_sampler(dataset, 1.0, seed=5, ignore_difficult=True)
    loader = build_train_loader(cfg, dataset=dataset)
    names = [x["file_name"] for batch in itertools.islice(loader, 4) for x in batch]
    assert names == [dataset[i]["file_name"] for i in itertools.islice(expected, len(names))]


def test_the_loader_samples_by_it():
    cfg = tiny_config("train.repeat_threshold=1.0", "train.seed=5")
    dataset = read_train_dataset(cfg)
    expected = iter(repeat_sampler(dataset, 1.0, seed=5))
    loader = iter(build_train_loader(cfg, dataset=dataset))
    for _ in range(3):
        names = [x["file_name"] for x in next(loader)]
        assert names == [dataset[next(expected)]["file_name"] for _ in names]
    again = next(iter(build_train_loader(cfg, start_iter=3, dataset=dataset)))
    assert [x["file_name"] for x in again] == [x["file_name"] for x in next(loader)]


class Model(torch.nn.Module):
    def __init__(self, *modules):
        super().__init__()
        self.parts = torch.nn.ModuleList(modules)


@pytest.mark.parametrize("weighted", [True, False])
def test_its_numbers_stand_beside_the_weights(weighted, log):
    counts = ClassCounts.from_dicts(IMAGES, NAMES)
    modules = [ClassBalanced(num_classes=2, beta=None)] if weighted else []
    columns = repeat_columns(IMAGES, 1.0, counts)
    hook = ClassBalanceHook(Model(*modules), counts, columns=columns)
    hook.trainer = type("Trainer", (), {"max_iter": 10})
    hook.before_train()
    lines = [line for line in log().splitlines() if line.startswith("| ")]
    header, (rare, often) = lines[0], lines[1:]
    assert ("final weight" in header) is weighted
    assert [x.strip() for x in header.split("|")[-3:-1]] == ["repeat", "instances an epoch"]
    assert rare.split("|")[-3].strip() == "2.000" and often.split("|")[-2].strip() == "5.000"
    assert ("Classes as they are sampled" in log()) is not weighted


@pytest.mark.parametrize("bad", ["0", "-0.1", "1.5", "often", "nan"])
def test_bad_thresholds(bad):
    with pytest.raises(UserError, match=r"train\.repeat_threshold=.*give a share of the images"):
        tiny_config(f"train.repeat_threshold={bad}")


def test_loaders_that_cannot():
    cfg = tiny_config("train.repeat_threshold=0.5")
    with pytest.raises(UserError, match=r"repeat_threshold=0\.5 needs .*a list of images"):
        build_train_loader(cfg, dataset=range(5))
    own = "dataloader.train.sampler._target_=detectron2.data.samplers.TrainingSampler"
    cfg = tiny_config("train.repeat_threshold=0.5", own, "dataloader.train.sampler.size=8")
    with pytest.raises(UserError, match=r"is a sampler, but dataloader\.train has one of its own"):
        build_train_loader(cfg, dataset=IMAGES)
