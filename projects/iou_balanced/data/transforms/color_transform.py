"""What transforms of an image's colors have in common."""

import detectron2.data.transforms as T
import numpy as np


class ColorTransform(T.Transform):
    """Changes colors only: coordinates and segmentations stay as they are."""

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> T.Transform:
        """No-op, as Detectron2 has it for all transforms that move nothing."""
        return T.NoOpTransform()


def check_color_image(img: np.ndarray) -> None:
    """Refuse what is no image of three channels.

    Raises:
        ValueError: the image is not (H, W, 3).
    """
    if img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f"Expected argument `img` to be (H, W, 3), but got {img.shape}")
