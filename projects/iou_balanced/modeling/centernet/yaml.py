"""CenterNet for yaml (yacs) users: what the configs are for those of LazyConfig."""

import logging

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone

from iou_balanced.backbones import DLAUpNeck, TimmBackbone, UpConvNeck, timm_images_warning
from iou_balanced.geometry.canvas import centernet_canvas, centernet_node
from iou_balanced.modeling.loss_families import BOX_FAMILIES, PENALTY_REDUCED
from iou_balanced.modeling.normalizer import LossNormalizer
from iou_balanced.modeling.yaml.class_balance import class_balance_from_config
from iou_balanced.modeling.yaml.losses import add_trainer_config, make_losses

from .box_transform import CenterBoxTransform
from .head import CenterNetHead

logger = logging.getLogger(__name__)

_NECKS = {"upconv": ("c5",), "dla": ("c2", "c3", "c4", "c5")}
"""The maps that each neck takes where the config names none."""


def add_centernet_config(cfg: CfgNode) -> None:
    """Add the keys of `MODEL.CENTERNET`, `SOLVER.OPTIMIZER` and those of our trainer.

    The last are `SOLVER.ACCUMULATION_STEPS` and `TEST.REPORT`.

    `MODEL.META_ARCHITECTURE: CenterNet` with `MODEL.BACKBONE.NAME: build_centernet_backbone` reads
    them, and `MODEL.PIXEL_MEAN`, `MODEL.PIXEL_STD` and `INPUT.FORMAT`, which have to be those of
    timm's weights: see `iou_balanced.backbones.timm_pixel_stats`. With
    `iou_balanced.modeling.add_iou_balanced_config` and `add_class_balance_config` it reads their
    keys too; without them its losses are the plain ones.

    The defaults are those of MobileNetV2 in "Balance-Oriented Focal Loss". Other than these are

    - MobileNetV3: BACKBONE "mobilenetv3_large_100.ra_in1k";
    - ResNet-18 and 101: BACKBONE "resnet18.tv_in1k" or "resnet101.tv_in1k", DEFORMABLE True,
      CANVAS "pad";
    - DLA-34: BACKBONE "dla34.in1k", NECK "dla", DEFORMABLE True, HEAD_CHANNELS 256,
      REGRESSION_STD None, CANVAS "pad".

    Args:
        cfg: Detectron2's config; changed in place.
    """
    node = CfgNode()
    node.NUM_CLASSES = 80
    # A model of timm; MODEL.WEIGHTS "timm://..." has its weights.
    node.BACKBONE = "mobilenetv2_100.ra_in1k"
    # Its BatchNorm: "BN", "FrozenBN", "SyncBN"; or "" for a model with other norms.
    node.BACKBONE_NORM = "BN"
    # 0: all layers are trained, as published. MODEL.BACKBONE.FREEZE_AT, which is 2, is not read.
    node.FREEZE_AT = 0
    # "upconv", or "dla" for DLA-34.
    node.NECK = "upconv"
    # The backbone's maps that the neck takes; () is c5 for "upconv" and c2 to c5 for "dla".
    node.IN_FEATURES = ()
    # Of each up-convolution of "upconv".
    node.UP_CHANNELS = (256, 128, 64)
    # Deformable convolution in the neck: for ResNet and DLA.
    node.DEFORMABLE = False
    node.NORM = "BN"
    node.HEAD_CHANNELS = 64
    node.HEAD_NORM = "BN"
    node.NORM_AFTER_ACTIVATION = True
    node.PRIOR_PROB = 0.1
    # Of the weights that offset and size start from; None is PyTorch's own.
    node.REGRESSION_STD = 0.001
    # Of offset x, y, width and height in the L1 loss.
    node.BBOX_REG_WEIGHTS = (0.5, 0.5, 0.05, 0.05)
    # Of the penalty-reduced focal loss.
    node.FOCAL_LOSS_ALPHA = 2.0
    node.FOCAL_LOSS_BETA = 4.0
    node.SCORE_THRESH_TEST = 0.0
    node.FLIP_TEST = False
    # (height, width) of the random crops that the training is on.
    node.CROP_SIZE = (512, 512)
    # What the test images are put on: "fit", a canvas of FIT_SIZE (height, width); "pad", which
    # keeps the resolution, its sides multiples of PAD_DIVISOR. "": they are only scaled, and in
    # training there are no crops, but Detectron2's own augmentations by the keys of INPUT.
    node.CANVAS = "fit"
    node.FIT_SIZE = (512, 512)
    node.PAD_DIVISOR = 32
    cfg.MODEL.CENTERNET = node
    # "SGD", Detectron2's, or "ADAM", as published; for iou_balanced.engine.BalancedDefaultTrainer.
    # Panoptic-DeepLab has the same key.
    if "OPTIMIZER" not in cfg.SOLVER:
        cfg.SOLVER.OPTIMIZER = "SGD"
    add_trainer_config(cfg)


@BACKBONE_REGISTRY.register()
def build_centernet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A timm model with CenterNet's neck, by the keys of `add_centernet_config`.

    It warns where `MODEL.WEIGHTS` is timm's and the images are not those that these are for.

    Raises:
        ValueError: there is no such neck, model or map.
    """
    node = centernet_node(cfg)
    if node.NECK not in _NECKS:
        raise ValueError(
            f"Expected MODEL.CENTERNET.NECK to be one of {list(_NECKS)}, but got {node.NECK!r}"
        )
    maps = list(node.IN_FEATURES or _NECKS[node.NECK])
    bottom_up = TimmBackbone(
        name=node.BACKBONE,
        out_features=maps,
        norm=node.BACKBONE_NORM or None,
        freeze_at=node.FREEZE_AT,
    )
    _warn_of_other_images(cfg)
    common = {"bottom_up": bottom_up, "deformable": node.DEFORMABLE, "norm": node.NORM}
    if node.NECK == "dla":
        return DLAUpNeck(in_features=maps, **common)
    if len(maps) != 1:
        raise ValueError(
            "Expected MODEL.CENTERNET.IN_FEATURES to be one map for the neck 'upconv', but got "
            f"{maps}"
        )
    return UpConvNeck(in_feature=maps[0], channels=node.UP_CHANNELS, **common)


def _warn_of_other_images(cfg: CfgNode) -> None:
    if not cfg.MODEL.WEIGHTS.startswith("timm://"):
        return
    text = timm_images_warning(
        cfg.MODEL.CENTERNET.BACKBONE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format=cfg.INPUT.FORMAT,
        keys=("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    )
    if text is not None:
        logger.warning("%s", text)


def centernet_from_config(cfg: CfgNode) -> dict:
    """The constructor arguments of `CenterNet` that the config stands for."""
    node, canvas = centernet_node(cfg), centernet_canvas(cfg)
    backbone = build_backbone(cfg)
    (shape,) = backbone.output_shape().values()
    balanced = cfg.MODEL.get("IOU_BALANCED")
    return {
        "backbone": backbone,
        "head": CenterNetHead(
            in_channels=shape.channels,
            num_classes=node.NUM_CLASSES,
            head_channels=node.HEAD_CHANNELS,
            norm=node.HEAD_NORM,
            norm_after_activation=node.NORM_AFTER_ACTIVATION,
            prior_prob=node.PRIOR_PROB,
            regression_std=node.REGRESSION_STD,
        ),
        "num_classes": node.NUM_CLASSES,
        "box2box_transform": CenterBoxTransform(weights=node.BBOX_REG_WEIGHTS),
        **make_losses(
            balanced,
            cls_family=PENALTY_REDUCED,
            cls_arguments={"alpha": node.FOCAL_LOSS_ALPHA, "beta": node.FOCAL_LOSS_BETA},
            box_family=BOX_FAMILIES["smooth_l1"],
            box_arguments={"beta": 0.0},  # L1
            measure=False,
        ),
        "class_balance": class_balance_from_config(cfg, node.NUM_CLASSES),
        "loss_normalizer": LossNormalizer(
            momentum=0.0,
            initial=None,
            across_processes=balanced is None or balanced.ACROSS_PROCESSES,
        ),
        "test_score_thresh": node.SCORE_THRESH_TEST,
        "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "flip_test": node.FLIP_TEST,
        "canvas": canvas,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "input_format": cfg.INPUT.FORMAT,
    }
