"""CenterNet for yaml (yacs) users."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone

from iou_balanced.backbones import DLAUpNeck, TimmBackbone, UpConvNeck
from iou_balanced.data import CenterFit, CenterPad

from .centernet_head import CenterNetHead


def add_centernet_config(cfg: CfgNode) -> None:
    """Add the keys of `MODEL.CENTERNET` to Detectron2's config.

    `MODEL.META_ARCHITECTURE: CenterNet` with `MODEL.BACKBONE.NAME: build_centernet_backbone` reads
    them, and `MODEL.PIXEL_MEAN`, `MODEL.PIXEL_STD` and `INPUT.FORMAT`: timm's models are for RGB,
    see `iou_balanced.backbones.timm_pixel_stats`. The defaults are those of MobileNetV2 in
    "Balance-Oriented Focal Loss". Losses are the plain ones; others are a matter of LazyConfig.
    """
    node = CfgNode()
    node.NUM_CLASSES = 80
    # A model of timm.
    node.BACKBONE = "mobilenetv2_100.ra_in1k"
    # "upconv", or "dla" for DLA-34.
    node.NECK = "upconv"
    # Deformable convolution in the neck: for ResNet and DLA.
    node.DEFORMABLE = False
    node.NORM = "BN"
    node.HEAD_CHANNELS = 64
    node.HEAD_NORM = "BN"
    node.NORM_AFTER_ACTIVATION = True
    node.PRIOR_PROB = 0.1
    node.SCORE_THRESH_TEST = 0.0
    node.FLIP_TEST = False
    # What the test loader does with images, to be undone: "fit" (a side of FIT_SIZE), "pad", or ""
    # where it only scales them.
    node.CANVAS = ""
    node.FIT_SIZE = 512
    cfg.MODEL.CENTERNET = node


@BACKBONE_REGISTRY.register()
def build_centernet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A timm model with CenterNet's neck, by the keys of `add_centernet_config`.

    Raises:
        ValueError: there is no such neck or model.
    """
    node = cfg.MODEL.CENTERNET
    necks = {"upconv": (UpConvNeck, ["c5"]), "dla": (DLAUpNeck, ["c2", "c3", "c4", "c5"])}
    if node.NECK not in necks:
        raise ValueError(
            f"Expected MODEL.CENTERNET.NECK to be one of {list(necks)}, but got {node.NECK!r}"
        )
    neck, maps = necks[node.NECK]
    bottom_up = TimmBackbone(name=node.BACKBONE, out_features=maps)
    return neck(bottom_up=bottom_up, deformable=node.DEFORMABLE, norm=node.NORM)


def centernet_from_config(cfg: CfgNode) -> dict:
    """The constructor arguments of `CenterNet` that the config stands for."""
    if "CENTERNET" not in cfg.MODEL:
        raise ValueError(
            "The config has no MODEL.CENTERNET: call "
            "iou_balanced.modeling.add_centernet_config(cfg) before merging the yaml file"
        )
    node = cfg.MODEL.CENTERNET
    canvases = {"": None, "fit": CenterFit(size=(node.FIT_SIZE,) * 2), "pad": CenterPad()}
    if node.CANVAS not in canvases:
        raise ValueError(
            f"Expected MODEL.CENTERNET.CANVAS to be one of {list(canvases)}, "
            f"but got {node.CANVAS!r}"
        )
    backbone = build_backbone(cfg)
    (shape,) = backbone.output_shape().values()
    return {
        "backbone": backbone,
        "head": CenterNetHead(
            in_channels=shape.channels,
            num_classes=node.NUM_CLASSES,
            head_channels=node.HEAD_CHANNELS,
            norm=node.HEAD_NORM,
            norm_after_activation=node.NORM_AFTER_ACTIVATION,
            prior_prob=node.PRIOR_PROB,
        ),
        "num_classes": node.NUM_CLASSES,
        "test_score_thresh": node.SCORE_THRESH_TEST,
        "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "flip_test": node.FLIP_TEST,
        "canvas": canvases[node.CANVAS],
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "input_format": cfg.INPUT.FORMAT,
    }
