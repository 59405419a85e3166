"""CenterNet's images for users of yaml (yacs) configs, by the keys of `MODEL.CENTERNET`."""

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from iou_balanced.geometry.canvas import centernet_canvas, centernet_node

from .color_jitter import ColorJitter
from .random_center_scale import RandomCenterScale

__all__ = ["centernet_augmentations"]


def centernet_augmentations(cfg: CfgNode, is_train: bool = True) -> list[T.Augmentation]:
    """The published augmentations, for Detectron2's mapper:

        DatasetMapper(cfg, is_train=True, augmentations=centernet_augmentations(cfg))

    In training a random crop by center and scale to `MODEL.CENTERNET.CROP_SIZE`, the flip of
    `INPUT.RANDOM_FLIP`, and jitter of colors in the channels' order of `INPUT.FORMAT`; in testing
    the canvas that the model takes its detections back from. Where `MODEL.CENTERNET.CANVAS` is
    "", they are Detectron2's own in both, by the keys of `INPUT`.

    Args:
        cfg: a yaml (yacs) config with the keys of `add_centernet_config`.
        is_train: training or testing.

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
