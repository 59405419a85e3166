"""CenterNet as in Section 5 of "Balance-Oriented Focal Loss": the settings of its configs."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data.transforms import AugInput, AugmentationList, RandomFlip
from omegaconf import OmegaConf
from PIL import Image

from iou_balanced.backbones import DLAUpNeck, TimmBackbone, UpConvNeck, timm_pixel_stats
from iou_balanced.backbones.centernet_necks import DeformableConv2d
from iou_balanced.data import CenterFit, CenterPad, ColorJitter, RandomCenterScale
from iou_balanced.engine.checkpoint import Checkpointer, load_initial_weights
from iou_balanced.losses import (
    BalanceOriented,
    IoUBalancedPenaltyReducedFocalLoss,
    LinearSchedule,
    PenaltyReducedFocalLoss,
    SmoothL1Loss,
)
from iou_balanced.modeling import CenterNet, balance

from .test_configs import load

# File -> weights, neck, number of deformable convolutions, channels of the backbone's maps and of
# the head, canvas.
BACKBONES = {
    "MNV2": ("mobilenetv2_100.ra_in1k", UpConvNeck, 0, [320], 64, CenterFit),
    "MNV3": ("mobilenetv3_large_100.ra_in1k", UpConvNeck, 0, [960], 64, CenterFit),
    "R_18": ("resnet18.tv_in1k", UpConvNeck, 3, [512], 64, CenterPad),
    "R_101": ("resnet101.tv_in1k", UpConvNeck, 3, [2048], 64, CenterPad),
    # 1 + 2 + 3 and 2 steps, with two convolutions each
    "DLA_34": ("dla34.in1k", DLAUpNeck, 16, [64, 128, 256, 512], 256, CenterPad),
}
FILES = [
    *(f"COCO/centernet_{name}_140e.py" for name in BACKBONES),
    "COCO/centernet_MNV2_140e_step.py",
    "COCO_LT/centernet_MNV2_140e.py",
]


def build(cfg):
    """The model, without memory for its values."""
    with torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_neck_and_head(name):
    weights, neck, num_deformable, channels, head_channels, canvas = BACKBONES[name]
    cfg = load(f"COCO/centernet_{name}_140e.py")
    assert cfg.train.init_checkpoint == f"timm://{cfg.model.backbone.bottom_up.name}"
    assert cfg.model.backbone.bottom_up.name == weights
    assert timm_pixel_stats(weights) == (cfg.model.pixel_mean, cfg.model.pixel_std)
    model = build(cfg)
    assert (
        type(model) is CenterNet and type(model.backbone) is neck and type(model.canvas) is canvas
    )
    assert model.stride == 4 and model.head.in_channels == 64
    bottom_up = model.backbone.bottom_up
    assert type(bottom_up) is TimmBackbone
    shapes = list(bottom_up.output_shape().values())
    assert [s.channels for s in shapes] == channels
    assert [s.stride for s in shapes] == [4, 8, 16, 32][-len(shapes) :]
    deformable = [m for m in model.modules() if isinstance(m, DeformableConv2d)]
    assert len(deformable) == num_deformable
    for branch in (model.head.heatmap, model.head.offset, model.head.size):
        kinds = [type(m).__name__ for m in branch]
        assert kinds == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d"]
        assert branch[0].out_channels == head_channels
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("file", FILES)
def test_losses_and_optimizer(file):
    cfg = load(file)
    cls_loss, box_loss = instantiate(cfg.model.cls_loss), instantiate(cfg.model.box_loss)
    assert (type(cls_loss), cls_loss.alpha, cls_loss.beta) == (PenaltyReducedFocalLoss, 2.0, 4.0)
    assert (type(box_loss), box_loss.beta) == (SmoothL1Loss, 0.0)
    assert instantiate(cfg.model.box2box_transform).weights == (0.5, 0.5, 0.05, 0.05)
    assert cfg.model.max_detections_per_image == 100 and not cfg.model.flip_test
    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 128
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert type(optimizer) is torch.optim.Adam and not optimizer.defaults.get(
        "decoupled_weight_decay"
    )
    groups = optimizer.param_groups
    assert {(g["lr"], g["weight_decay"], g["betas"]) for g in groups} == {
        (5e-4, 1e-4, (0.9, 0.999))
    }
    assert sum(len(g["params"]) for g in groups) == 4


@pytest.mark.parametrize("file", FILES)
def test_images(file):
    cfg = load(file)
    train, test = cfg.dataloader.train, cfg.dataloader.test
    assert train.dataset.filter_empty is False and train.aspect_ratio_grouping is False
    assert train.mapper.image_format == test.mapper.image_format == cfg.model.input_format == "RGB"
    augmentations = [instantiate(x) for x in train.mapper.augmentations]
    assert [type(x) for x in augmentations] == [RandomCenterScale, RandomFlip, ColorJitter]
    crop, _, jitter = augmentations
    assert crop.scales == tuple(x / 10 for x in range(6, 14)) and crop.border == 128
    assert (jitter.brightness, jitter.contrast, jitter.saturation) == (0.4, 0.4, 0.4)
    assert (jitter.lighting, jitter.image_format) == (0.1, "RGB")
    image = AugInput(np.zeros((480, 640, 3), dtype=np.uint8))
    AugmentationList(augmentations)(image)
    assert image.image.shape == (512, 512, 3)

    # What the test loader does, the model undoes, also after an override of one of them.
    size = (512, 672) if cfg.model.canvas._target_ is CenterPad else (512, 512)
    (canvas,) = (instantiate(x) for x in test.mapper.augmentations)
    for x in (canvas, build(cfg).canvas):
        assert x.transform_for(480, 640).output_size == size
    key, value = ("divisor", 64) if size[1] == 672 else ("size", [384, 384])
    cfg = load(file, f"model.canvas.{key}={value}")
    ours, theirs = instantiate(cfg.model.canvas), instantiate(cfg.dataloader.test.mapper)
    assert repr(theirs.augmentations.augs[0]) == repr(ours)
    assert ours.transform_for(480, 640).output_size in {(512, 704), (384, 384)}


@pytest.mark.parametrize("file", FILES)
def test_bofl(file):
    cfg = load(file.replace(".py", "_bofl.py"))
    node = cfg.model.class_balance
    ours = instantiate(node)
    assert type(ours) is BalanceOriented and ours.num_classes == cfg.model.num_classes == 80
    assert (ours.eta, ours.count_over, ours.counted) == (0.8, "image", "instances")
    assert ours.intensity == (0.05 if file.startswith("COCO_LT") else 1.0)
    schedule = ours.schedule
    assert type(schedule) is LinearSchedule and schedule.update == "epoch"
    assert (schedule.total_epochs, schedule.deferred_epochs) == (140, 5)
    # An epoch of the learning rate's schedule is one of the class weights'.
    epoch = cfg.train.max_iter // 140
    assert schedule.progress(6 * epoch - 1, cfg.train.max_iter) == 0
    assert schedule.progress(6 * epoch, cfg.train.max_iter) == pytest.approx(1 / 134)
    assert load(file).model.get("class_balance") is None


def test_an_image_without_boxes_becomes_an_input(tmp_path):
    cfg = load(FILES[0])
    file = tmp_path / "image.png"
    Image.new("RGB", (64, 48), (10, 20, 200)).save(file)
    image = {"file_name": str(file), "height": 48, "width": 64, "image_id": 1, "annotations": []}
    x = instantiate(cfg.dataloader.train.mapper)(image)
    assert x["image"].shape == (3, 512, 512) and x["image"].dtype == torch.float32
    assert len(x["instances"]) == len(x["instances"].gt_boxes) == 0
    x = instantiate(cfg.dataloader.test.mapper)(image)  # 512 x 384 pixels in the middle
    assert x["image"].shape == (3, 512, 512) and not x["image"][:, :60].any()
    assert x["image"][:, 256, 256].tolist() == [10, 20, 200]  # RGB


def test_the_data_of_coco_lt():
    cfg = load("COCO_LT/centernet_MNV2_140e.py")
    for split in ("train", "test"):
        names = cfg.dataloader[split].dataset.names
        assert names._target_.__name__ == "register_coco_lt"
    assert cfg.dataloader.train.dataset.names.split == "train"


@pytest.mark.parametrize("name", ["R_18", "DLA_34"])
def test_imagenet_weights_get_below_the_neck(name, tmp_path):
    cfg = load(f"COCO/centernet_{name}_140e.py", "model.num_classes=2")
    source = instantiate(cfg.model.backbone.bottom_up).state_dict()
    cfg.train.init_checkpoint = str(tmp_path / "weights.pth")
    torch.save({"model": source, "matching_heuristics": True}, cfg.train.init_checkpoint)
    model = instantiate(cfg.model)
    neck = {k: v.clone() for k, v in model.state_dict().items() if ".bottom_up." not in k}
    load_initial_weights(Checkpointer(model), cfg)
    found = model.state_dict()
    assert all(torch.equal(found[k], v) for k, v in neck.items())
    for key, value in source.items():
        assert torch.equal(found[f"backbone.bottom_up.{key}"], value), key


def test_balance_gives_the_iou_balanced_losses_and_takes_them_back():
    model = load("COCO/centernet_MNV2_140e.py").model
    before = OmegaConf.to_container(model)
    balance(model, eta=1.0)
    assert model.cls_loss._target_ is IoUBalancedPenaltyReducedFocalLoss
    assert (model.cls_loss.eta, model.cls_loss.alpha, model.cls_loss.beta) == (1.0, 2.0, 4.0)
    assert (model.box_loss.beta, model.box_loss.lam) == (0.0, 1.5)
    assert (model.box_loss.weight, model.box_loss.normalize) == (1.0, True)  # Eq. 7
    balance(model, eta=None, lam=None)
    assert OmegaConf.to_container(model) == before
    # Where a config leaves them to the class, they are the published ones.
    for key in ("cls_loss", "box_loss"):
        model.pop(key)
    balance(model, eta=None, lam=None)
    assert OmegaConf.to_container(model) == before
