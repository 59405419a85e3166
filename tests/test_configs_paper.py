"""The settings of the paper's tables (arXiv 1908.05641), in each config that reproduces them."""

import re

import pytest
from detectron2.config import instantiate

from iou_balanced.reproduction import find_table

from .test_configs import ENDINGS, FILES, load

RGB = ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
MSRA = ("BGR", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0])  # the stem's weights hold the deviation
# Depth, stride of the bottleneck in its 1x1 convolution, pixels, weights.
BACKBONES = {
    "R_18": (18, None, RGB, "torchvision://resnet18/IMAGENET1K_V1"),
    "R_50": (50, True, MSRA, "detectron2://ImageNetPretrained/MSRA/R-50.pkl"),
    "R_101": (101, True, MSRA, "detectron2://ImageNetPretrained/MSRA/R-101.pkl"),
    "X_101_32x4d": (101, False, RGB, "timm://resnext101_32x4d.gluon_in1k"),
}
# Losses of Table 4's rows with both, by config: eta, lambda and w_loc of the ablations are theirs.
LOSSES = {row.config: row.losses for row in find_table("iou/4").rows}
RETINANET = re.compile(
    rf"COCO/retinanet_(?P<backbone>{'|'.join(BACKBONES)})_FPN_1x(?P<ablation>_600)?"
    r"(?P<losses>_iou_balanced(_cls|_loc)?)?(_test_dev)?\.py"
)
PAPER = [(file, m) for file in FILES if (m := RETINANET.fullmatch(file))]


def test_the_papers_configs_are_all_there():
    full = {f"{b}_FPN_1x" for b in BACKBONES} | {"R_50_FPN_1x_600"}
    names = {f"{f}{e}" for f in full for e in ("", *(set(ENDINGS) - {"_test_dev", "_bofl"}))}
    names |= {f"{b}_FPN_1x_iou_balanced_test_dev" for b in set(BACKBONES) - {"R_18"}}
    assert {file for file, _ in PAPER} == {f"COCO/retinanet_{name}.py" for name in names}


@pytest.mark.parametrize(("file", "parts"), PAPER, ids=[file for file, _ in PAPER])
def test_the_papers_settings(file, parts):
    cfg = load(file)
    depth, stride_in_1x1, (order, mean, std), weights = BACKBONES[parts["backbone"]]
    both = LOSSES[f"COCO/retinanet_{parts['backbone']}_FPN_1x_iou_balanced"]

    bottom_up = cfg.model.backbone.bottom_up
    assert bottom_up.stages.depth == depth and bottom_up.freeze_at == 2
    assert bottom_up.stages.get("stride_in_1x1") is stride_in_1x1
    assert bottom_up.stages.norm == bottom_up.stem.norm == "FrozenBN"
    if parts["backbone"].startswith("X"):
        assert (bottom_up.stages.num_groups, bottom_up.stages.width_per_group) == (32, 4)
    assert cfg.train.init_checkpoint == weights
    assert (cfg.model.input_format, cfg.model.pixel_mean, cfg.model.pixel_std) == (order, mean, std)

    has_cls = parts["losses"] in ("_iou_balanced", "_iou_balanced_cls")
    has_loc = parts["losses"] in ("_iou_balanced", "_iou_balanced_loc")
    eta = both["cls_loss"]["eta"] if has_cls else None
    lam = both["box_loss"]["lam"] if has_loc else None
    cls_loss, box_loss = cfg.model.cls_loss, cfg.model.box_loss
    assert (cls_loss.alpha, cls_loss.gamma, cls_loss.get("eta")) == (0.25, 2.0, eta)
    assert (box_loss.beta, box_loss.get("lam")) == (0.11, lam)
    assert box_loss.get("weight") == (both["box_loss"]["weight"] if has_loc else None)
    assert not box_loss.get("normalize")  # Eq. 6, not Eq. 7

    scale = (600, 1000) if parts["ablation"] else (800, 1333)
    train, test = (cfg.dataloader[split].mapper for split in ("train", "test"))
    for mapper in (train, test):
        resize = instantiate(mapper.augmentations[0])
        assert (resize.short_edge_length, resize.max_size) == ((scale[0], scale[0]), scale[1])
        assert mapper.image_format == order
    flip = instantiate(train.augmentations[1])
    assert (flip.prob, flip.horizontal, flip.vertical) == (0.5, True, False)
    assert len(train.augmentations) == 2 and len(test.augmentations) == 1
    assert train.is_train and not test.is_train and not train.use_instance_mask

    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 16
    optimizer = cfg.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    on_test_dev = file.endswith("_test_dev.py")
    test_set = "coco_2017_test-dev" if on_test_dev else "coco_2017_val"
    assert cfg.dataloader.train.dataset.names == "coco_2017_train"
    assert cfg.dataloader.test.dataset.names == cfg.dataloader.evaluator.dataset_name == test_set
    assert cfg.train.best_checkpoint.metric == (None if on_test_dev else "bbox/AP")
