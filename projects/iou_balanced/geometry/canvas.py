"""The canvases that CenterNet's test images are put on, and the way back to the image.

Objects as Points (Zhou et al., arXiv 1904.07850), section 5, and its authors' code: `CenterFit` for
a fixed input size (the authors' `fix_res`), or `CenterPad` to keep the resolution (`keep_res`).
Both put the image in the middle of a black canvas. As Detectron2's `detector_postprocess` can only
scale boxes, the detector is given the same object as the mapper, and calls its `postprocess`
instead. In the top left corner scaling would be enough, but padding and objects would lie elsewhere
on the cells of the heat map: other numbers than the authors'.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from .affine import AffineCropTransform, as_size, window_around

__all__ = ["CenterFit", "CenterPad", "centernet_canvas", "centernet_node"]


class _Canvas(T.Augmentation, ABC):
    """The image in the middle of a canvas. Where depends on nothing but the image's size."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The transform of an image.

        Args:
            image: (H, W, C) or (H, W).
        """
        return self.transform_for(*image.shape[:2])

    @abstractmethod
    def transform_for(self, height: int, width: int) -> AffineCropTransform:
        """The transform of an image of this size.

        Args:
            height: of the image in pixels.
            width: of the image in pixels.
        """

    def postprocess(self, results: Instances, height: int, width: int) -> Instances:
        """Detections on the canvas as detections in the image, for `detector_postprocess`.

        Args:
            results: of an image that was put on this canvas, with `pred_boxes`. Not modified.
            height: of the image before that, in pixels; "height" of a model's input.
            width: likewise.

        Returns:
            Instances: with boxes clipped to the image, without those that are empty then.

        Raises:
            ValueError: `results` are not of such an image.
        """
        transform = self.transform_for(height, width)
        if tuple(results.image_size) != transform.output_size:
            raise ValueError(
                f"Expected argument `results` to be of an image of {transform.output_size} (height,"
                f" width), which {self} makes of one of {(height, width)}, but got "
                f"{tuple(results.image_size)}: it has to be the mapper's only test augmentation"
            )
        (left, top, _, _), (scale_x, scale_y) = transform.src_rect, transform.scale
        x0, y0, x1, y1 = results.pred_boxes.tensor.unbind(dim=1)
        sides = (x0 / scale_x + left, y0 / scale_y + top, x1 / scale_x + left, y1 / scale_y + top)
        boxes = Boxes(torch.stack(sides, dim=1))
        boxes.clip((height, width))
        fields = {**results.get_fields(), "pred_boxes": boxes}
        return Instances((height, width), **fields)[boxes.nonempty()]


class CenterFit(_Canvas):
    """Resize the image to what fits into a fixed size, and put it in the middle.

    Args:
        size: (height, width) of the output.

    Raises:
        ValueError: a size that is not positive.
    """

    def __init__(self, *, size: Sequence[int] = (512, 512)):
        super().__init__()
        self.size = as_size(size)

    def transform_for(self, height: int, width: int) -> AffineCropTransform:
        window = window_around((width / 2, height / 2), (height, width), self.size, 1.0)
        return AffineCropTransform(window, self.size, (height, width))


class CenterPad(_Canvas):
    """Pad the image on all sides to multiples of a number, keeping its resolution.

    As in the authors' code a multiple becomes the next one: 480 x 640 pixels become 512 x 672.

    Args:
        divisor: positive and even, so that the padding is of whole pixels.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, *, divisor: int = 32):
        super().__init__()
        if divisor <= 0 or divisor % 2 != 0:
            raise ValueError(
                f"Expected argument `divisor` to be a positive even number, but got {divisor}"
            )
        self.divisor = divisor

    def transform_for(self, height: int, width: int) -> AffineCropTransform:
        h, w = ((side // self.divisor + 1) * self.divisor for side in (height, width))
        left, top = width // 2 - w // 2, height // 2 - h // 2
        return AffineCropTransform((left, top, left + w, top + h), (h, w), (height, width))


def centernet_canvas(cfg: CfgNode) -> CenterFit | CenterPad | None:
    """What `MODEL.CENTERNET.CANVAS` stands for; None where images are only scaled.

    Args:
        cfg: a yaml (yacs) config with the keys of `add_centernet_config`.

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

    Args:
        cfg: a yaml (yacs) config.

    Raises:
        ValueError: the config lacks it.
    """
    if "CENTERNET" not in cfg.MODEL:
        raise ValueError(
            "The config has no MODEL.CENTERNET: call "
            "iou_balanced.modeling.add_centernet_config(cfg) before merging the yaml file"
        )
    return cfg.MODEL.CENTERNET
