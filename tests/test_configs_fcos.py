"""FCOS as in Table 9 of "Balance-Oriented Focal Loss", and the small one for the digits."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes, Instances

from iou_balanced.backbones import timm_pixel_stats
from iou_balanced.losses import GIoULoss, SigmoidFocalLoss
from iou_balanced.modeling import BalancedFCOS, HeadGroupNorm

from .test_configs import load

COCO = ("COCO/fcos_R_50_FPN_1x.py", "COCO/fcos_MNV2_FPN_1x.py")


def build(file, *overrides):
    """The model of a config, without memory for its values."""
    with torch.device("meta"):
        return instantiate(load(file, *overrides).model)


@pytest.mark.parametrize("file", COCO)
def test_settings_of_table_9(file):
    cfg = load(file)
    # Section 5.6: "16 batches for 12 epochs", cosine annealing.
    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 16
    assert cfg.train.max_iter == 12 * 7330
    multiplier = instantiate(cfg.lr_multiplier)
    assert multiplier((cfg.train.max_iter - 1) / cfg.train.max_iter) < 1e-8
    assert multiplier(0.5) == pytest.approx(0.5)
    optimizer = cfg.optimizer
    assert optimizer._target_ is torch.optim.SGD
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    for split in ("train", "test"):
        resize = instantiate(cfg.dataloader[split].mapper.augmentations[0])
        assert (resize.short_edge_length, resize.max_size) == ((800, 800), 1333)
    assert len(cfg.dataloader.train.mapper.augmentations) == 2  # and a flip


@pytest.mark.parametrize("file", [*COCO, "Digits/fcos_small.py"])
def test_the_baseline_has_the_losses_of_fcos(file):
    model = instantiate(load(file).model.cls_loss), instantiate(load(file).model.box_loss)
    assert [type(x) for x in model] == [SigmoidFocalLoss, GIoULoss]
    assert (model[0].alpha, model[0].gamma) == (0.25, 2.0)


def test_r_50_has_the_weights_of_the_stock_fcos():
    ours = build(COCO[0])
    stock = model_zoo.get_config("common/models/fcos.py").model
    stock.head.norm = HeadGroupNorm()  # "GN" fails in Detectron2 v0.6
    with torch.device("meta"):
        stock = instantiate(stock)
    assert type(stock) is FCOS and type(ours) is BalancedFCOS
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in stock.state_dict().items()
    ]
    for key in ("test_score_thresh", "test_nms_thresh", "center_sampling_radius"):
        assert getattr(ours, key) == getattr(stock, key)
    norms = [m for m in ours.head.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) == 8 and {(m.num_groups, m.num_channels) for m in norms} == {(32, 256)}


def test_r_50_freezes_the_first_stage_and_all_batch_norms():
    cfg = load(COCO[0])
    assert cfg.train.init_checkpoint == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    model = build(COCO[0])
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    first = ("backbone.bottom_up.stem.", "backbone.bottom_up.res2.")
    assert frozen == {k for k, _ in model.named_parameters() if k.startswith(first)}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def test_mobilenet_v2_in_rgb_with_all_layers_trained():
    cfg = load(COCO[1])
    name = cfg.train.init_checkpoint.removeprefix("timm://")
    assert name == cfg.model.backbone.bottom_up.name == "mobilenetv2_100.ra_in1k"
    stats = timm_pixel_stats(name)
    assert stats == (cfg.model.pixel_mean, cfg.model.pixel_std)
    assert all(cfg.dataloader[x].mapper.image_format == "RGB" for x in ("train", "test"))

    model = build(COCO[1])
    assert all(p.requires_grad for p in model.parameters())
    shapes = model.backbone.output_shape()
    assert {k: s.stride for k, s in shapes.items()} == {f"p{i}": 2**i for i in range(3, 8)}
    bottom_up = model.backbone.bottom_up.output_shape()
    assert [(s.channels, s.stride) for s in bottom_up.values()] == [(32, 8), (96, 16), (320, 32)]
    top = model.backbone.top_block
    assert top.in_feature == "p5" and top.p6.in_channels == 256


def test_group_norm_of_a_head_says_what_it_cannot_divide():
    assert HeadGroupNorm(num_groups=4)(8).num_groups == 4
    assert HeadGroupNorm()(1).num_groups == 1
    with pytest.raises(ValueError, match="divisible"):
        HeadGroupNorm()(40)


# Objects of the digits are 18 to 64 px large.
@pytest.mark.parametrize(
    ("side", "levels"), [(18, {0}), (32, {0}), (40, {0}), (46, {0, 1}), (56, {0, 1}), (66, {1})]
)
def test_each_object_of_the_digits_has_points_and_each_level_objects(side, levels):
    model = instantiate(load("Digits/fcos_small.py").model)
    shapes = model.backbone.output_shape()
    assert [shapes[k].stride for k in model.head_in_features] == [4, 8]
    maps = [torch.zeros(1, 1, 128 // s, 128 // s) for s in (4, 8)]
    anchors = model.anchor_generator(maps)
    target = Instances((128, 128))
    target.gt_boxes = Boxes([[31.0, 40.0, 31.0 + 0.8 * side, 40.0 + side]])
    target.gt_classes = torch.tensor([7])
    labels, _ = model.label_anchors(anchors, [target])
    found = [int((x == 7).sum()) for x in labels[0].split([len(a) for a in anchors])]
    assert {i for i, points in enumerate(found) if points} == levels
    assert sum(found) >= 4
