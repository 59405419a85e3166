"""SSD's expansion and its crop with a minimum IoU.

The whole of SSD's training augmentation (Liu et al., arXiv 1512.02325, sections 2.2 and 3.6), in
MMDetection's order:

    RandomExpand, MinIoURandomCrop, T.Resize((300, 300)), T.RandomFlip, PhotometricDistortion

The mapper has to be `BoxAwareDatasetMapper`.
"""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np

from iou_balanced.geometry.polygons import clip_polygon

__all__ = [
    "ExpandTransform",
    "KeepCentersCropTransform",
    "MinIoURandomCrop",
    "RandomExpand",
    "transform_boxes",
]

_CROP_TRIALS = 50
_MAX_ASPECT_RATIO = 2.0


class RandomExpand(T.Augmentation):
    """Put the image at a random place on a larger canvas, so that its objects become small.

    SSD's "zoom out" (arXiv 1512.02325, section 3.6). Both sides of the canvas are `ratio` times
    those of the image, with `ratio` uniform in [1, max_ratio].

    Args:
        max_ratio: at least 1. The canvas has up to its square times the image's pixels.
        prob: how probable it is that anything is done.
        fill: colour of the canvas, in the order of the image's channels; the mean colour that the
            model subtracts. Default: ImageNet's in RGB; BGR needs (104, 117, 123).
        seg_pad_value: label of the canvas in segmentations. Detectron2 transforms an instance's
            bitmask in the same way as a semantic segmentation: the former needs 0, the latter the
            ignored label, mostly 255.

    Raises:
        ValueError: max_ratio below 1, prob outside [0, 1]; when applied, an image that does not
            have as many channels as `fill`.
    """

    def __init__(
        self,
        *,
        max_ratio: float = 4.0,
        prob: float = 0.5,
        fill: Sequence[float] = (123.0, 117.0, 104.0),
        seg_pad_value: int = 0,
    ):
        super().__init__()
        if not max_ratio >= 1:
            raise ValueError(f"Expected argument `max_ratio` to be >= 1, but got {max_ratio}")
        if not 0 <= prob <= 1:
            raise ValueError(f"Expected argument `prob` to be in [0, 1], but got {prob}")
        self.max_ratio = max_ratio
        self.prob = prob
        self.fill = tuple(fill)  # a LazyConfig gives a ListConfig
        self.seg_pad_value = seg_pad_value

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the transform.

        Args:
            image: (H, W, C) or (H, W).

        Raises:
            ValueError: `fill` has not a value for each channel.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        if len(self.fill) != channels:
            raise ValueError(
                f"Expected argument `fill` to have one value for each of the image's {channels} "
                f"channels, but got {self.fill}"
            )
        if np.random.uniform() >= self.prob:
            return T.NoOpTransform()
        h, w = image.shape[:2]
        ratio = np.random.uniform(1, self.max_ratio)
        more_h, more_w = int(h * ratio) - h, int(w * ratio) - w
        top, left = np.random.randint(more_h + 1), np.random.randint(more_w + 1)
        return ExpandTransform(
            left, top, more_w - left, more_h - top, w, h, self.fill, self.seg_pad_value
        )


class ExpandTransform(T.PadTransform):
    """fvcore's PadTransform with a fill value for each channel.

    Args:
        x0, y0, x1, y1: pixels to add to the left, top, right and bottom.
        orig_w, orig_h: the image's size.
        pad_value: one value a channel; rounded for an image of integers.
        seg_pad_value: label of the added pixels in segmentations.
    """

    def __init__(
        self,
        x0: int,
        y0: int,
        x1: int,
        y1: int,
        orig_w: int,
        orig_h: int,
        pad_value: Sequence[float],
        seg_pad_value: int = 0,
    ):
        super().__init__(x0, y0, x1, y1, orig_w=orig_w, orig_h=orig_h)
        self.pad_value = pad_value
        self.seg_pad_value = seg_pad_value

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        value = np.asarray(self.pad_value)
        if np.issubdtype(img.dtype, np.integer):
            value = np.rint(value)
        return self._pad(img, value.reshape(img.shape[2:]))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Pad labels with `seg_pad_value`.

        Args:
            segmentation: (H, W), or (H, W, C) for bitmasks.
        """
        return self._pad(segmentation, np.asarray(self.seg_pad_value))

    def _pad(self, img: np.ndarray, value: np.ndarray) -> np.ndarray:
        h, w = img.shape[:2]
        shape = (self.y0 + h + self.y1, self.x0 + w + self.x1, *img.shape[2:])
        canvas = np.empty(shape, dtype=img.dtype)
        # whole rows at a time: far faster than colour by colour
        canvas[:] = np.full(shape[1:], value, dtype=img.dtype)
        canvas[self.y0 : self.y0 + h, self.x0 : self.x0 + w] = img
        return canvas


class MinIoURandomCrop(T.Augmentation):
    """Crop to a random part of the image that has at least some IoU with its boxes.

    From section 2.2 of the SSD paper (Liu et al., arXiv 1512.02325), in MMDetection's reading. One
    of these modes is drawn, all equally probable:

    - keep the image as it is;
    - one of `min_ious`: the IoU of the crop with each box is at least that (the authors' code asks
      it of any one box), so with small boxes the higher ones hardly ever succeed;
    - any crop.

    A crop's height and width are uniform in [min_crop_size, 1] of the image's, its height to width
    is in [1/2, 2], and at least one box has its center strictly inside. After 50 crops in vain,
    another mode is drawn. Boxes whose center is not inside the crop are to be removed:
    `BoxAwareDatasetMapper` does it (Detectron2's mapper would keep their visible rest), and clips
    the others. An image without boxes is kept, or cropped anywhere. The main branch of Detectron2
    has an augmentation of the same name, but nothing that gives it boxes or removes any.

    Args:
        min_ious: each in [0, 1].
        min_crop_size: in (0, 1].

    Raises:
        ValueError: a number outside of its range; when applied, no boxes because of a mapper that
            does not pass them on.
    """

    def __init__(
        self,
        *,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
    ):
        super().__init__()
        min_ious = tuple(min_ious)  # a LazyConfig gives a ListConfig
        if not all(0 <= x <= 1 for x in min_ious):
            raise ValueError(f"Expected argument `min_ious` to be in [0, 1], but got {min_ious}")
        if not 0 < min_crop_size <= 1:
            raise ValueError(
                f"Expected argument `min_crop_size` to be in (0, 1], but got {min_crop_size}"
            )
        self.min_ious = min_ious
        self.min_crop_size = min_crop_size

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Draw the transform.

        Args:
            image: (H, W, C) or (H, W).
            boxes: (N, 4) XYXY in pixels.

        Raises:
            ValueError: `boxes` is None, because the mapper passes none on.
        """
        if boxes is None:
            raise ValueError(
                "Expected argument `boxes` to be an array of (N, 4), but got None: "
                "MinIoURandomCrop needs BoxAwareDatasetMapper, other mappers give it no boxes"
            )
        h, w = image.shape[:2]
        # An IoU of at least 0 is no condition. `None` comes up sooner or later and ends the loop.
        modes = (None, *self.min_ious, 0.0)
        while True:
            min_iou = modes[np.random.randint(len(modes))]
            if min_iou is None:
                return T.NoOpTransform()
            crops = self._random_crops(h, w)
            if len(boxes) > 0:
                crops = crops[_satisfies(crops, boxes, min_iou)]
            if len(crops) > 0:
                x0, y0, x1, y1 = crops[0].tolist()
                return KeepCentersCropTransform(x0, y0, x1 - x0, y1 - y0, w, h)

    def _random_crops(self, h: int, w: int) -> np.ndarray:
        """Up to 50 crops, int64 (trials, 4), XYXY: those that are neither too oblong nor empty."""
        sizes = np.random.uniform(self.min_crop_size, 1, (_CROP_TRIALS, 2)) * (w, h)
        corners = np.random.uniform(0, 1, (_CROP_TRIALS, 2)) * ((w, h) - sizes)
        # rounded down as in MMDetection, at the cost of the last row and column
        crops = np.concatenate([corners, corners + sizes], axis=1).astype(np.int64)
        ratio = sizes[:, 1] / sizes[:, 0]
        valid = (ratio >= 1 / _MAX_ASPECT_RATIO) & (ratio <= _MAX_ASPECT_RATIO)
        return crops[valid & (crops[:, :2] < crops[:, 2:]).all(axis=1)]


class KeepCentersCropTransform(T.CropTransform):
    """A crop after which only the boxes whose center was inside it are to be used.

    A transform can move boxes, but not remove any; whoever has the list of them asks
    `contains_centers`, or calls `transform_boxes`. Boxes are clipped to the crop here, polygons
    like them, so that what comes after may also be a larger canvas. shapely is not needed.

    Args:
        x0, y0, w, h: the crop, in whole pixels.
        orig_w, orig_h: the image's size before it.
    """

    def __init__(self, x0: int, y0: int, w: int, h: int, orig_w: int, orig_h: int):
        super().__init__(x0, y0, w, h, orig_w, orig_h)

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The crop in XYXY, in the image before it."""
        return self.x0, self.y0, self.x0 + self.w, self.y0 + self.h

    def contains_centers(self, boxes: np.ndarray) -> np.ndarray:
        """(N,) bool: which boxes have their center inside the crop.

        Args:
            boxes: (N, 4) XYXY in pixels of the image before the crop.
        """
        return _centers_inside(np.array([self.window]), boxes)[0]

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        return super().apply_box(box).clip(0, (self.w, self.h, self.w, self.h))

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        return [self.apply_coords(q) for p in polygons for q in clip_polygon(p, self.window)]


def transform_boxes(transform: T.Transform, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apply a transform to boxes, and remove those that one of its crops does not keep.

    Args:
        transform: any; each `KeepCentersCropTransform` in a list removes boxes.
        boxes: (N, 4), XYXY. Not modified.

    Returns:
        tuple: the boxes that are left (M, 4), and their row numbers in `boxes` (M,).
    """
    kept = np.arange(len(boxes))
    for t in T.TransformList([transform]).transforms:
        if isinstance(t, KeepCentersCropTransform):
            inside = t.contains_centers(boxes)
            boxes, kept = boxes[inside], kept[inside]
        boxes = t.apply_box(boxes)
    return boxes, kept


def _satisfies(crops: np.ndarray, boxes: np.ndarray, min_iou: float) -> np.ndarray:
    """(T,) bool: which crops (T, 4) have that IoU with each box (N, 4), and a center inside."""
    top_left = np.maximum(crops[:, None, :2], boxes[:, :2])
    bottom_right = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    intersection = (bottom_right - top_left).clip(min=0).prod(axis=2)
    crop_area = (crops[:, 2:] - crops[:, :2]).prod(axis=1)
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = intersection / (crop_area[:, None] + box_area - intersection)
    return (iou.min(axis=1) >= min_iou) & _centers_inside(crops, boxes).any(axis=1)


def _centers_inside(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(T, N) bool: which boxes (N, 4) have their center strictly inside of which crop (T, 4)."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centers > crops[:, None, :2]
    before = centers < crops[:, None, 2:]
    return (after & before).all(axis=2)
