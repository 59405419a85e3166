"""configs/VOC: the settings of Table 5 (arXiv 1908.05641), and the way from files to AP."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import OmegaConf

from iou_balanced.data import VOC_CLASSES, register_voc
from iou_balanced.engine import UserError, do_test, do_train, load_config
from iou_balanced.engine.loader import build_train_loader
from iou_balanced.engine.train import check_config

from ...voc_files import write_voc

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
R50 = "VOC/retinanet_R_50_FPN_1x.py"
# Depth, pixel order, weights, w_loc of the authors' code where it has one.
BACKBONES = {
    "R_50": (50, "BGR", "detectron2://ImageNetPretrained/MSRA/R-50.pkl", 2.34),
    "R_101": (101, "BGR", "detectron2://ImageNetPretrained/MSRA/R-101.pkl", 2.369),
    "X_101_32x4d": (101, "RGB", "timm://resnext101_32x4d.gluon_in1k", "auto"),
}


def load(file, *overrides):
    return load_config(str(CONFIGS / file), list(overrides))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("balanced", [False, True], ids=["baseline", "balanced"])
def test_the_papers_settings(backbone, balanced):
    stem = f"retinanet_{backbone}_FPN_1x{'_iou_balanced' * balanced}"
    cfg = load(f"VOC/{stem}.py")
    depth, order, weights, w_loc = BACKBONES[backbone]
    bottom_up = cfg.model.backbone.bottom_up
    assert (bottom_up.stages.depth, bottom_up.freeze_at) == (depth, 2)
    assert cfg.model.num_classes == len(VOC_CLASSES) and cfg.train.init_checkpoint == weights
    twin = load(f"COCO/{stem}.py")  # pixels, anchors, thresholds: all but the classes and w_loc
    ours, theirs = (OmegaConf.to_container(c.model, resolve=False) for c in (cfg, twin))
    assert ours["box_loss"].pop("weight", None) == (w_loc if balanced else None)
    theirs["box_loss"].pop("weight", None)
    theirs["num_classes"] = 20
    assert ours == theirs
    cls_loss, box_loss = cfg.model.cls_loss, cfg.model.box_loss
    assert (cls_loss.get("eta"), box_loss.get("lam")) == ((1.5, 1.5) if balanced else (None, None))

    for split in ("train", "test"):
        mapper = cfg.dataloader[split].mapper
        resize = instantiate(mapper.augmentations[0])
        assert (resize.short_edge_length, resize.max_size) == ((600, 600), 1000)
        assert len(mapper.augmentations) == (2 if split == "train" else 1)
        assert mapper.image_format == cfg.model.input_format == order
    flip = instantiate(cfg.dataloader.train.mapper.augmentations[1])
    assert (flip.prob, flip.horizontal, flip.vertical) == (0.5, True, False)
    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 16
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (
        (0.01, 0.9, 1e-4)
    )
    train, test = (cfg.dataloader[split].dataset.names for split in ("train", "test"))
    assert (train.years, train.split, train.difficult) == ([2007, 2012], "trainval", "drop")
    assert (test.years, test.split, test.get("difficult", "keep")) == ([2007], "test", "keep")
    assert cfg.dataloader.evaluator.metric == "11point"
    assert cfg.train.best_checkpoint.metric == "bbox/AP"
    assert cfg.train.output_dir == f"./output/voc/{stem}"


def test_the_schedule():
    cfg = load(R50)
    # 16,551 images in batches of 16: 1,034.4 iterations. 12 epochs, drop after the ninth.
    assert cfg.train.max_iter == 12 * 1035
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 1035
    scheduler = instantiate(cfg.lr_multiplier)
    rates = [scheduler(i / cfg.train.max_iter) for i in range(cfg.train.max_iter)]
    assert rates == [1.0] * (9 * 1035) + [0.1] * (3 * 1035)


DOG, CAR, SHY = (11, 21, 70, 80), (31, 41, 110, 90), (1, 1, 40, 40)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """The three sets of 07+12: an image has a dog, or a dog and a difficult car, or only that."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    objects = [
        [("dog", DOG)],
        [("dog", DOG), ("car", SHY, 1)],
        [("car", SHY, 1)],
        [("dog", SHY), ("car", CAR)],
    ]
    for year, splits in ((2007, ("trainval", "test")), (2012, ("trainval",))):
        for split in splits:
            images = {f"{year}_{split}_{i}": o for i, o in enumerate(objects)}
            folder = tmp_path / f"sets/VOCdevkit/VOC{year}"
            write_voc(folder, images, {split: images}, seed=year)
    return tmp_path


def one_epoch(cfg, images):
    cfg.dataloader.train.total_batch_size = 1
    cfg.dataloader.train.num_workers = 0
    cfg.train.seed = 0
    loader = iter(build_train_loader(cfg))
    return [next(loader)[0] for _ in range(images)]


def test_the_training_data(voc):
    cfg = load(R50)
    cfg.train.device = "cpu"
    check_config(cfg)
    # The image with a difficult object only is not trained on.
    batch = one_epoch(cfg, 6)
    assert {Path(x["file_name"]).stem for x in batch} == {
        f"{year}_trainval_{i}" for year in (2007, 2012) for i in (0, 1, 3)
    }
    assert sorted(tuple(x["instances"].gt_classes.tolist()) for x in batch) == (
        [(11,)] * 4 + [(11, 6)] * 2
    )
    for x in batch:
        assert x["image"].shape == (3, 600, 800)
        # 120 pixels became 800; the dog's box, or its mirror image.
        left, top, right, bottom = x["instances"].gt_boxes.tensor[0].tolist()
        x0, y0, x1, y1 = SHY if "_3" in x["file_name"] else DOG
        scale = 800 / 120
        assert (top, bottom) == pytest.approx(((y0 - 1) * scale, y1 * scale))
        sides = [((x0 - 1) * scale, x1 * scale), ((120 - x1) * scale, (121 - x0) * scale)]
        assert (left, right) in [pytest.approx(side) for side in sides]

    cfg = load(R50, "datasets.train.difficult=keep", "datasets.train.years=[2012]")
    batch = one_epoch(cfg, 4)
    assert sorted(len(x["instances"]) for x in batch) == [1, 1, 2, 2]


def test_a_list_of_data_sets(voc):
    cfg = load(R50)
    cfg.train.device = "cpu"
    cfg.datasets.train = [
        LazyCall(register_voc)(years=[year], split="trainval") for year in (2007, 2012)
    ]
    check_config(cfg)
    assert len({x["file_name"] for x in one_epoch(cfg, 8)}) == 8
    cfg.model.num_classes = 80
    with pytest.raises(
        UserError, match=r"voc2007_trainval' .* has 20 classes.*model.num_classes=20"
    ):
        check_config(cfg)


def test_missing_data_is_said_before_training_starts(voc):
    cfg = load(R50)
    cfg.train.device = "cpu"
    (voc / "sets/VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    with pytest.raises(UserError, match=r"(?s)VOC2007/ImageSets/Main/test.txt.*VOCtest_06"):
        check_config(cfg)


class Stub(torch.nn.Module):
    """Gives what it is told to for each image: (class, score, box as in the xml file)."""

    def __init__(self, detections):
        super().__init__()
        self.detections = detections

    def forward(self, inputs):
        outputs = []
        for x in inputs:
            assert x["image"].shape == (3, 600, 800)
            rows = self.detections[int(x["file_name"].removesuffix(".jpg")[-1])]
            instances = Instances((x["height"], x["width"]))
            boxes = torch.tensor([box for *_, box in rows], dtype=torch.float32).reshape(-1, 4)
            instances.pred_boxes = Boxes(boxes - torch.tensor([1, 1, 0, 0]))
            instances.scores = torch.tensor([score for _, score, _ in rows])
            instances.pred_classes = torch.tensor([VOC_CLASSES.index(c) for c, *_ in rows]).long()
            outputs.append({"instances": instances})
        return outputs


def evaluate(voc, *detections):
    cfg = load(R50, "dataloader.test.num_workers=0", f"train.output_dir={voc}/out")
    return do_test(cfg, Stub(detections))


def test_perfect_detections(voc):
    results = evaluate(
        voc, [("dog", 0.9, DOG)], [("dog", 0.8, DOG)], [], [("dog", 0.7, SHY), ("car", 0.6, CAR)]
    )
    for task in ("bbox", "bbox_11point", "bbox_area"):
        values = {k: v for k, v in results[task].items() if v == v}  # not NaN
        assert set(values) == (
            {"AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "AP-dog", "AP-car"}
        )
        assert all(v == pytest.approx(100) for v in values.values())
        assert len(results[task]) == 7 + 20
    lines = (voc / "out/inference/comp4_det_test_dog.txt").read_text().splitlines()
    assert lines[2] == f"2007_test_3 {float(torch.tensor(0.7)):.9g} 1 1 40 40"


def test_broken_detections(voc):
    # Dogs: in the first image one pixel of 60 to the right, IoU 59/61 = 0.967: true at every
    # threshold. In the second 12 to the right, IoU 48/72 = 0.667: true up to 0.65. In the last one
    # missed. Ranked between them a second detection of the first, which is false.
    # Up to 0.65: true, false, true of 3. Precision 1 at recall 1/3, then 2/3 at 2/3.
    #   Eleven points: 0 to 0.3 have 1, 0.4 to 0.6 have 2/3. Area: (1 + 2/3) / 3.
    # From 0.7: true, false, false: 1 at recall 1/3, which four points have. Area: 1/3.
    # Cars: difficult ones are found twice, which is no matter; the other is behind a false one at
    # all thresholds, precision 1/2, recall 1: 1/2 by both.
    results = evaluate(
        voc,
        [("dog", 0.9, (12, 21, 71, 80)), ("dog", 0.8, DOG)],
        [("dog", 0.7, (23, 21, 82, 80)), ("car", 0.95, SHY), ("car", 0.94, SHY)],
        [("car", 0.93, SHY), ("car", 0.92, (80, 50, 110, 80))],
        [("car", 0.91, CAR)],
    )
    low, high = 100 * (4 + 3 * 2 / 3) / 11, 100 * 4 / 11
    expected = {
        "AP-dog": (4 * low + 6 * high) / 10,
        "AP-car": 50,
        "AP50": (low + 50) / 2,
        "AP60": (low + 50) / 2,
        "AP70": (high + 50) / 2,
        "AP90": (high + 50) / 2,
        "AP": ((4 * low + 6 * high) / 10 + 50) / 2,
    }
    assert {k: results["bbox"][k] for k in expected} == pytest.approx(expected)
    assert results["bbox"] is not results["bbox_11point"]
    area = results["bbox_area"]
    assert area["AP-dog"] == pytest.approx(100 * (4 * (1 + 2 / 3) / 3 + 6 / 3) / 10)
    assert area["AP-car"] == pytest.approx(50)


def test_a_training(voc):
    cfg = load(R50)
    small = load("Digits/retinanet_small.py")
    cfg.model = small.model
    cfg.model.num_classes = 20
    for split in ("train", "test"):
        cfg.dataloader[split].num_workers = 0
        resize = cfg.dataloader[split].mapper.augmentations[0]
        resize.short_edge_length, resize.max_size = 64, 96
    cfg.dataloader.train.total_batch_size = 2
    cfg.train.output_dir = str(voc / "out")
    cfg.train.device, cfg.train.init_checkpoint, cfg.train.seed = "cpu", "", 0
    cfg.train.max_iter = cfg.train.eval_period = 2
    (voc / "out").mkdir()
    do_train(Namespace(resume=False), cfg)
    record = {}
    for line in (voc / "out/metrics.json").read_text().splitlines():
        record.update(json.loads(line))
    assert record["loss_cls"] > 0
    for task in ("bbox", "bbox_11point", "bbox_area"):
        assert 0 <= record[f"{task}/AP"] <= record[f"{task}/AP50"] <= 100
    assert (voc / "out/model_best.pth").exists()
