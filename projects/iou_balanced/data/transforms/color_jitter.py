"""CenterNet's jitter of colors."""

import math
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np

from .color_transform import ColorTransform, check_color_image

__all__ = ["ColorJitter", "ColorJitterTransform"]

# ITU-R BT.601, as OpenCV's conversion to grey has it; in RGB
_LUMA = np.array([0.299, 0.587, 0.114])
# Of the covariance of COCO's colors in [0, 1], from the authors' code; a row of the eigenvectors is
# a channel. The authors have them in BGR, here it is RGB.
_EIGENVALUES = np.array([0.2141788, 0.01817699, 0.00341571])
_EIGENVECTORS = np.array(
    [
        [-0.56089297, 0.71832671, 0.41158938],
        [-0.5832747, 0.00994535, -0.81221408],
        [-0.58752847, -0.69563484, 0.41340352],
    ]
)
_STEPS = ("brightness", "contrast", "saturation")
_STRIP = 64  # rows whose temporary arrays fit into the processor's cache: twice as fast


class ColorJitter(T.Augmentation):
    """Random brightness, contrast and saturation in random order, then PCA lighting.

    Of the authors' code of Objects as Points (Zhou et al., arXiv 1904.07850), which has it from
    CornerNet (Law and Deng, arXiv 1808.01244); lighting is that of Krizhevsky et al. (NIPS 2012,
    section 4.1). The image becomes float32 and is neither rounded nor clipped to [0, 255].

    Args:
        brightness, contrast, saturation: the factor of each is uniform in [1 - x, 1 + x].
        lighting: standard deviation of the lighting's three weights.
        image_format: order of the image's channels, "RGB" or "BGR".

    Raises:
        ValueError: a negative number, another image_format; when applied, an image that is not
            (H, W, 3).
    """

    def __init__(
        self,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        lighting: float = 0.1,
        image_format: str = "RGB",
    ):
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.lighting = lighting
        self.image_format = image_format
        for name in (*_STEPS, "lighting"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"Expected argument `{name}` to be >= 0, but got {getattr(self, name)}"
                )
        if image_format not in ("RGB", "BGR"):
            raise ValueError(
                f"Expected argument `image_format` to be 'RGB' or 'BGR', but got {image_format!r}"
            )

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the transform.

        Args:
            image: (H, W, 3) in [0, 255].
        """
        order = [_STEPS[i] for i in np.random.permutation(len(_STEPS))]
        factors = {step: 1 + np.random.uniform(-1, 1) * getattr(self, step) for step in order}
        lighting = np.random.normal(size=3) * self.lighting
        return ColorJitterTransform(factors, lighting.tolist(), image_format=self.image_format)


class ColorJitterTransform(ColorTransform):
    """Change an image's colors; coordinates and segmentations stay as they are.

    The image is (H, W, 3) in [0, 255], of any dtype. The result is float32 and not clipped.

    Args:
        factors: of "brightness", "contrast" and "saturation", in the order in which they come.
            Brightness multiplies all channels; saturation blends them, `factor` to `1 - factor`,
            with the grey of each pixel, and contrast with the mean of that. Grey is always that of
            the image as it was at first, as in the authors' code. One that is missing is 1.
        lighting: weights of the three principal components of COCO's colors, added at the end.
        image_format: "RGB" or "BGR".
    """

    def __init__(
        self,
        factors: dict[str, float],
        lighting: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        image_format: str = "RGB",
    ):
        super().__init__()
        self.factors = factors
        self.lighting = lighting
        self.image_format = image_format

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        check_color_image(img)
        # All steps are linear in the image, its grey and the mean of that, hence so is the result.
        own, of_grey, of_mean = 1.0, 0.0, 0.0
        for step, factor in self.factors.items():
            own, of_grey, of_mean = own * factor, of_grey * factor, of_mean * factor
            if step == "contrast":
                of_mean += 1 - factor
            elif step == "saturation":
                of_grey += 1 - factor
        luma = _LUMA
        shift = 255 * _EIGENVECTORS @ (_EIGENVALUES * self.lighting)
        if self.image_format == "BGR":
            luma, shift = luma[::-1], shift[::-1]
        if of_mean != 0:
            # row by row is several times faster; a column's sum is exact in float32
            mean = img.mean(axis=0, dtype=np.float32).mean(axis=0, dtype=np.float64)
            shift = shift + of_mean * (mean @ luma)
        mixture = own * np.eye(3) + of_grey * luma[:, None]  # column c: what channel c is made of
        mixture, shift = mixture.astype(np.float32), shift.astype(np.float32)
        result = np.empty(img.shape, dtype=np.float32)
        for top in range(0, len(img), _STRIP):
            strip = slice(top, top + _STRIP)
            np.matmul(img[strip].astype(np.float32), mixture, out=result[strip])
            result[strip] += shift
        return result
