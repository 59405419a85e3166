"""CenterNet's crop by center and scale, and what takes detections back to the image.

Objects as Points (Zhou et al., arXiv 1904.07850), section 5, and its authors' code. In training,
with `BoxAwareDatasetMapper` or Detectron2's own mapper, which drop the boxes that are empty then:

    RandomCenterScale(size=(512, 512)), T.RandomFlip(), ColorJitter()

In testing, `CenterFit` for a fixed input size (the authors' `fix_res`), or `CenterPad` to keep the
resolution (`keep_res`). Both put the image in the middle of a black canvas. As Detectron2's
`detector_postprocess` can only scale boxes, the detector is given the same object as the mapper,
and calls its `postprocess` instead. In the top left corner scaling would be enough, but padding and
objects would lie elsewhere on the cells of the heat map: other numbers than the authors'.

Coordinates are Detectron2's: pixel i of a row covers [i, i + 1], its center is i + 1/2, and pixels
are moved as boxes are. In the authors' code the coordinates of boxes are indices of pixels, so that
there the image is (1 - scale) / 2 pixels off its boxes. Each pixel is interpolated between four,
without a low-pass filter, and black lies around the image, as in OpenCV's `warpAffine`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from .polygons import clip_polygon

__all__ = ["AffineCropTransform", "CenterFit", "CenterPad", "RandomCenterScale"]

_STRIP = 32  # rows whose temporary arrays fit into the processor's cache: twice as fast


class RandomCenterScale(T.Augmentation):
    """Crop a window of random center and scale, and resize it to a fixed size.

    For a square output, the window's sides are `scale` times the image's longer side; in general,
    `scale` times those of the smallest window of the output's shape that has room for the image.
    Its center is a whole number of pixels, at least `border` from the image's sides. Where there is
    no such place, `border` is halved until there is.

    Args:
        size: (height, width) of the output.
        scales: all equally probable; below 1 zooms in.
        border: in pixels.
        seg_pad_value: label of what is outside of the image, as for `RandomExpand`: 0 for
            instances' bitmasks; the ignored label, mostly 255, for semantic segmentations.

    Raises:
        ValueError: a size or a scale that is not positive, no scales, a negative border.
    """

    def __init__(
        self,
        *,
        size: Sequence[int] = (512, 512),
        scales: Sequence[float] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        border: int = 128,
        seg_pad_value: int = 0,
    ):
        super().__init__()
        scales = tuple(scales)  # a LazyConfig gives a ListConfig
        if not scales or not all(0 < x < float("inf") for x in scales):
            raise ValueError(f"Expected argument `scales` to be positive, but got {scales}")
        if not border >= 0:
            raise ValueError(f"Expected argument `border` to be >= 0, but got {border}")
        self.size = _as_size(size)
        self.scales = scales
        self.border = border
        self.seg_pad_value = seg_pad_value

    def get_transform(self, image: np.ndarray) -> T.Transform:
        h, w = image.shape[:2]
        scale = self.scales[np.random.randint(len(self.scales))]
        center = [_random_center(side, self.border) for side in (w, h)]
        window = _window(center, (h, w), self.size, scale)
        return AffineCropTransform(window, self.size, (h, w), self.seg_pad_value)


class AffineCropTransform(T.Transform):
    """Resize a window of the image, which may reach beyond it, to a given size.

    Images are (H, W) or (H, W, C), of floating point or of integers, which are rounded; outside of
    them is 0. Boxes and polygons are clipped to the window. Nothing is changed in place.

    Args:
        src_rect: the window, (x0, y0, x1, y1) in the image; need not be whole pixels.
        output_size, orig_size: (height, width), the latter that of the image.
        seg_pad_value: label of what is outside of the image in segmentations.

    Raises:
        ValueError: when applied to an image that is not of `orig_size`.
    """

    def __init__(
        self,
        src_rect: Sequence[float],
        output_size: tuple[int, int],
        orig_size: tuple[int, int],
        seg_pad_value: int = 0,
    ):
        super().__init__()
        self.src_rect = src_rect
        self.output_size = output_size
        self.orig_size = orig_size
        self.seg_pad_value = seg_pad_value

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels for each pixel of the image, along x and y."""
        x0, y0, x1, y1 = self.src_rect
        h, w = self.output_size
        return w / (x1 - x0), h / (y1 - y0)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        self._check(img)
        (x0, y0, x1, y1), (h, w) = self.src_rect, self.output_size
        pixels = img.reshape(*self.orig_size, -1)
        dtype = np.result_type(img.dtype, np.float32)
        rows, above, below, above_part, below_part = _taps(y0, y1, h, len(pixels), dtype)
        columns, left, right, left_part, right_part = _taps(x0, x1, w, pixels.shape[1], dtype)
        canvas = np.zeros((h, w, pixels.shape[2]), dtype=img.dtype)
        for start in range(0, len(above), _STRIP):
            strip = slice(start, start + _STRIP)
            lines = pixels[above[strip]] * above_part[strip, None, None]
            lines += pixels[below[strip]] * below_part[strip, None, None]
            result = np.take(lines, left, axis=1)
            result *= left_part[:, None]
            more = np.take(lines, right, axis=1)
            more *= right_part[:, None]
            result += more
            if np.issubdtype(img.dtype, np.integer):
                np.rint(result, out=result)
            canvas[rows.start + start : rows.start + start + len(result), columns] = result
        return canvas.reshape(h, w, *img.shape[2:])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        # the label at the center of each output pixel
        self._check(segmentation)
        (x0, y0, x1, y1), (h, w) = self.src_rect, self.output_size
        y, x = _centers(y0, y1, h), _centers(x0, x1, w)
        rows, columns = _between(y, 0, self.orig_size[0]), _between(x, 0, self.orig_size[1])
        canvas = np.full((h, w), self.seg_pad_value, dtype=segmentation.dtype)
        nearest = np.ix_(y[rows].astype(np.int64), x[columns].astype(np.int64))
        canvas[rows, columns] = segmentation[nearest]
        return canvas

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        moved = (coords - np.array(self.src_rect[:2])) * self.scale
        return moved.astype(np.result_type(coords.dtype, np.float32), copy=False)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        h, w = self.output_size
        return super().apply_box(box).clip(0, (w, h, w, h))

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        return [self.apply_coords(q) for p in polygons for q in clip_polygon(p, self.src_rect)]

    def inverse(self) -> T.Transform:
        h, w = self.orig_size
        (x0, y0), (x1, y1) = self.apply_coords(np.array([(0.0, 0.0), (w, h)])).tolist()
        window = (x0, y0, x1, y1)
        return AffineCropTransform(window, self.orig_size, self.output_size, self.seg_pad_value)

    def _check(self, img: np.ndarray) -> None:
        if img.shape[:2] != tuple(self.orig_size):
            raise ValueError(
                f"Expected argument `img` to be an image of {self.orig_size} (height, width), "
                f"but got {img.shape[:2]}"
            )


class _Canvas(T.Augmentation, ABC):
    """The image in the middle of a canvas. Where depends on nothing but the image's size."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return self.transform_for(*image.shape[:2])

    @abstractmethod
    def transform_for(self, height: int, width: int) -> AffineCropTransform:
        """The transform of an image of this size."""

    def postprocess(self, results: Instances, height: int, width: int) -> Instances:
        """Detections on the canvas as detections in the image, for `detector_postprocess`.

        Args:
            results: of an image that was put on this canvas, with `pred_boxes`. Not modified.
            height, width: the image's size before that, "height" and "width" of a model's input.

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
        self.size = _as_size(size)

    def transform_for(self, height: int, width: int) -> AffineCropTransform:
        window = _window((width / 2, height / 2), (height, width), self.size, 1.0)
        return AffineCropTransform(window, self.size, (height, width))


class CenterPad(_Canvas):
    """Pad the image on all sides to multiples of a number, keeping its resolution.

    As in the authors' code a multiple becomes the next one: 480 x 640 pixels become 512 x 672.

    Args:
        divisor: positive and even, so that the padding is of whole pixels.
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


def _as_size(size: Sequence[int]) -> tuple[int, int]:
    size = tuple(size)  # a LazyConfig gives a ListConfig
    if len(size) != 2 or not all(x > 0 for x in size):
        raise ValueError(f"Expected argument `size` to be a (height, width) > 0, but got {size}")
    return size


def _random_center(side: int, border: int) -> int:
    """Uniform in [b, side - b), b being `border`, halved until that is not empty."""
    while side - border <= border:
        border //= 2
    return int(np.random.randint(border, side - border))


def _window(center, image_size, size, scale) -> tuple[float, float, float, float]:
    """XYXY; with `scale` 1 the smallest of `size`'s shape that has room for the image."""
    (h, w), (x, y) = size, center
    half = scale * max(image_size[0] / h, image_size[1] / w) / 2
    return x - w * half, y - h * half, x + w * half, y + h * half


def _centers(low: float, high: float, number: int) -> np.ndarray:
    """Where the centers of `number` pixels lie that cover [low, high]."""
    return low + (np.arange(number) + 0.5) * ((high - low) / number)


def _between(x: np.ndarray, low: float, high: float) -> slice:
    """Which of the ascending numbers are in [low, high)."""
    return slice(*np.searchsorted(x, (low, high)).tolist())


def _taps(low: float, high: float, number: int, size: int, dtype: np.dtype) -> tuple:
    """Of which two of `size` pixels each of `number` on [low, high] is the sum, and their parts.

    Returns the slice of those with a part inside; for them, two arrays of indices and two of parts.
    """
    x = _centers(low, high, number) - 0.5
    inside = _between(x, -1, size)
    x = x[inside]
    first = np.floor(x).astype(np.int64)
    part = x - first
    # A neighbor outside is black: its part is 0, whatever its index.
    first_part = np.where(first >= 0, 1 - part, 0).astype(dtype)
    second_part = np.where(first + 1 < size, part, 0).astype(dtype)
    return inside, first.clip(min=0), (first + 1).clip(max=size - 1), first_part, second_part
