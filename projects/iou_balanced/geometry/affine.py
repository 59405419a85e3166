"""A window of the image, resized: the transform behind CenterNet's crops and canvases.

Coordinates are Detectron2's: pixel i of a row covers [i, i + 1], its center is i + 1/2, and pixels
are moved as boxes are. In the code of Objects as Points' authors (arXiv 1904.07850) the coordinates
of boxes are indices of pixels, so that there the image is (1 - scale) / 2 pixels off its boxes.
Each pixel is interpolated between four, without a low-pass filter, and black lies around the image,
as in OpenCV's `warpAffine`.
"""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np

from .polygons import clip_polygon

__all__ = ["AffineCropTransform", "as_size", "window_around"]

_STRIP = 32  # rows whose temporary arrays fit into the processor's cache: twice as fast


class AffineCropTransform(T.Transform):
    """Resize a window of the image, which may reach beyond it, to a given size.

    Images are (H, W) or (H, W, C), of floating point or of integers, which are rounded; outside of
    them is 0. Boxes and polygons are clipped to the window. Nothing is changed in place.

    Args:
        src_rect: the window, (x0, y0, x1, y1) in the image; need not be whole pixels.
        output_size: (height, width) of the result.
        orig_size: (height, width) of the image.
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


def as_size(size: Sequence[int]) -> tuple[int, int]:
    """An argument `size` as (height, width).

    Args:
        size: two numbers, in pixels; a LazyConfig gives a ListConfig.

    Raises:
        ValueError: it is not two positive numbers.
    """
    size = tuple(size)
    if len(size) != 2 or not all(x > 0 for x in size):
        raise ValueError(f"Expected argument `size` to be a (height, width) > 0, but got {size}")
    return size


def window_around(
    center: Sequence[float], image_size: Sequence[int], size: Sequence[int], scale: float
) -> tuple[float, float, float, float]:
    """A window of the image, (x0, y0, x1, y1) in its pixels.

    Args:
        center: (x, y) of the window, in pixels of the image.
        image_size: (height, width).
        size: (height, width) that the window is to be resized to, which gives its shape.
        scale: 1 is the smallest window of this shape that has room for the image.
    """
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
