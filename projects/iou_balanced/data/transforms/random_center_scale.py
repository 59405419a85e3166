"""CenterNet's crop by center and scale (arXiv 1904.07850, section 5, and its authors' code).

In training, with `BoxAwareDatasetMapper` or Detectron2's own mapper, which drop the boxes that are
empty then:

    RandomCenterScale(size=(512, 512)), T.RandomFlip(), ColorJitter()

In testing, see `iou_balanced.geometry.canvas`.
"""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np

from iou_balanced.geometry.affine import AffineCropTransform, as_size, window_around

__all__ = ["RandomCenterScale"]


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
        self.size = as_size(size)
        self.scales = scales
        self.border = border
        self.seg_pad_value = seg_pad_value

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the transform.

        Args:
            image: (H, W, C) or (H, W).
        """
        h, w = image.shape[:2]
        scale = self.scales[np.random.randint(len(self.scales))]
        center = [_random_center(side, self.border) for side in (w, h)]
        window = window_around(center, (h, w), self.size, scale)
        return AffineCropTransform(window, self.size, (h, w), self.seg_pad_value)


def _random_center(side: int, border: int) -> int:
    """Uniform in [b, side - b), b being `border`, halved until that is not empty."""
    while side - border <= border:
        border //= 2
    return int(np.random.randint(border, side - border))
