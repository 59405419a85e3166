"""CenterNet's images for users of yaml (yacs) configs, by the keys of `MODEL.CENTERNET`."""

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from .affine import CenterFit, CenterPad, RandomCenterScale
from .color_jitter import ColorJitter

__all__ = ["centernet_augmentations", "centernet_canvas", "centernet_node"]


def centernet_augmentations(cfg: CfgNode, is_train: bool = True) -> list[T.Augmentation]:
    """The published augmentations, for Detectron2's mapper:

        DatasetMapper(cfg, is_train=True, augmentations=centernet_augmentations(cfg))

    In training a random crop by center and scale to `MODEL.CENTERNET.CROP_SIZE`, the flip of
    `INPUT.RANDOM_FLIP`, and jitter of colors in the channels' order of `INPUT.FORMAT`; in testing
    the canvas that the model takes its detections back from. Where `MODEL.CENTERNET.CANVAS` is
    "", they are Detectron2's own in both, by the keys of `INPUT`.

    Raises:
        ValueError: the config lacks `MODEL.CENTERNET`, or a value there is not possible.
    """
    canvas = centernet_canvas(cfg)
    if canvas is None:
        return DatasetMapper.from_config(cfg, is_train)["augmentations"]
    if not is_train:
        return [canvas]
    augmentations = [RandomCenterScale(size=centernet_node(cfg).CROP_SIZE)]
    flip = cfg.INPUT.RANDOM_FLIP
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return [*augmentations, ColorJitter(image_format=cfg.INPUT.FORMAT)]


def centernet_canvas(cfg: CfgNode) -> CenterFit | CenterPad | None:
    """What `MODEL.CENTERNET.CANVAS` stands for; None where images are only scaled.

    Raises:
        ValueError: as `centernet_augmentations`.
    """
    node = centernet_node(cfg)
    if node.CANVAS == "":
        return None
    if node.CANVAS == "fit":
        return CenterFit(size=node.FIT_SIZE)
    if node.CANVAS == "pad":
        return CenterPad(divisor=node.PAD_DIVISOR)
    raise ValueError(
        f"Expected MODEL.CENTERNET.CANVAS to be 'fit', 'pad' or '', but got {node.CANVAS!r}"
    )


def centernet_node(cfg: CfgNode) -> CfgNode:
    """`MODEL.CENTERNET`.

    Raises:
        ValueError: the config lacks it.
    """
    if "CENTERNET" not in cfg.MODEL:
        raise ValueError(
            "The config has no MODEL.CENTERNET: call "
            "iou_balanced.modeling.add_centernet_config(cfg) before merging the yaml file"
        )
    return cfg.MODEL.CENTERNET
