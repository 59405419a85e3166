"""Small detectors with random weights that find something, and images for them."""

import copy
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import GeneralizedRCNN
from PIL import Image
from torch import nn

from iou_balanced.data import CenterFit
from iou_balanced.engine import load_config
from iou_balanced.modeling import SSD, CenterNet

ROOT = Path(__file__).resolve().parents[2]
DIGITS = [str(i) for i in range(10)]
SMALL = (
    *("retinanet_small_iou_balanced", "fcos_small", "foveabox_small", "ssd_small"),
    *("centernet_small", "faster_rcnn_small"),
)


def small_config(name: str, *overrides: str):
    """A config of configs/Digits that resizes its test images, and has no score threshold."""
    cfg = load_config(str(ROOT / f"configs/Digits/{name}.py"), list(overrides))
    cfg = copy.deepcopy(cfg)
    resize = L(T.ResizeShortestEdge)(short_edge_length=96, max_size=128)
    if name.startswith("ssd"):
        resize = L(T.Resize)(shape=(128, 128))
    if name.startswith("centernet"):
        cfg.model.canvas = L(CenterFit)(size=(96, 128))
        resize = "${model.canvas}"
    cfg.dataloader.test.mapper.augmentations = [resize]
    heads = cfg.model.roi_heads.box_predictor if "roi_heads" in cfg.model else cfg.model
    heads.test_score_thresh = 0.0
    cfg.datasets.test.num_images, cfg.datasets.test.image_size = 4, 80
    cfg.train.device = "cpu"
    return cfg


def zoo_config(name: str):
    """A stock config of the model zoo with a small ResNet-18 and 10 classes."""
    cfg = model_zoo.get_config(name)
    bottom_up = cfg.model.backbone.bottom_up
    bottom_up.stages.depth = 18
    del bottom_up.stages.stride_in_1x1
    stages = bottom_up.stages
    stages.norm = bottom_up.stem.norm = "BN"
    cfg.model.roi_heads.num_classes = 10
    predictors = (
        cfg.model.roi_heads.box_predictors
        if "box_predictors" in cfg.model.roi_heads
        else [cfg.model.roi_heads.box_predictor]
    )
    for predictor in predictors:
        predictor.test_score_thresh = 0.0
    return cfg


def save_weights(cfg, file: Path, *, names=DIGITS) -> str:
    """Random weights, whose scores differ enough from each other to have an order."""
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    # Scores must not be 1.
    std = 0.03 if isinstance(model, (SSD, CenterNet, GeneralizedRCNN)) else 0.2
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "cls_score" in name or name.startswith("head.heatmap"):
                p.normal_(std=std if p.dim() > 1 else 5 * std)
            if name == "head.size.3.bias":
                p.fill_(3.0)  # CenterNet's, in cells
            if name == "head.bbox_pred.bias" and "ctrness" in str(model):
                p.fill_(2.0)  # the distance from a point to its box's sides
    calibrate(model)
    content = {"model": model.state_dict()}
    if names is not None:
        content["class_names"] = list(names)
    torch.save(content, file)
    return str(file)


@torch.no_grad()
def calibrate(model) -> None:
    """Give the norms of the backbone the statistics of noise, as images are."""
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = 255 * torch.rand(2, 3, 128, 128)
    model.backbone.train()((images - model.pixel_mean) / model.pixel_std)


def write_images(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Smooth pictures of these (height, width) as 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, (height, width) in enumerate(sizes):
        coarse = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        files.append(folder / f"{i}.png")
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(files[-1])
    return files
