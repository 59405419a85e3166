"""SSD's photometric distortion."""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np

from .color_transform import ColorTransform, check_color_image

__all__ = ["PhotometricDistortion", "PhotometricTransform"]

_PROB = 0.5
_STRIP = 64  # rows whose dozen temporary arrays fit into the processor's cache: twice as fast
_TINY = np.finfo(np.float32).tiny


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation, hue and order of channels.

    Each happens with probability 0.5, in this order: brightness, contrast, saturation, hue, swap of
    channels. From section 2.2 of the SSD paper (Liu et al., arXiv 1512.02325), which takes it from
    Howard (arXiv 1312.5402); order and numbers as in MMDetection's SSD300. The authors' code has
    the same numbers, but swaps nothing. In both, a coin says whether contrast comes before
    saturation and hue or after them. As long as nothing is clipped in between, as here and in
    MMDetection, that is the same: hue and saturation do not depend on an image's scale.

    The image is (H, W, 3), uint8 or floating point, with values in [0, 255].

    Args:
        brightness_delta: what is added to all channels is uniform in [-delta, delta].
        contrast_range: all channels are multiplied by a number that is uniform in this range.
        saturation_range: the same for the saturation in HSV.
        hue_delta: degrees; what is added to the hue in HSV is uniform in [-delta, delta].
        image_format: order of the image's channels, "RGB" or "BGR".

    Raises:
        ValueError: a negative delta, a range that is not 0 <= low <= high, another image_format;
            when applied, an image that is not (H, W, 3).
    """

    def __init__(
        self,
        *,
        brightness_delta: float = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: float = 18,
        image_format: str = "RGB",
    ):
        super().__init__()
        for name, delta in (("brightness_delta", brightness_delta), ("hue_delta", hue_delta)):
            if not delta >= 0:
                raise ValueError(f"Expected argument `{name}` to be >= 0, but got {delta}")
        if image_format not in ("RGB", "BGR"):
            raise ValueError(
                f"Expected argument `image_format` to be 'RGB' or 'BGR', but got {image_format!r}"
            )
        self.brightness_delta = brightness_delta
        self.contrast_range = _as_range("contrast_range", contrast_range)
        self.saturation_range = _as_range("saturation_range", saturation_range)
        self.hue_delta = hue_delta
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the transform.

        Args:
            image: (H, W, 3) in [0, 255].
        """
        # All numbers are drawn whether they are used or not, so that an image costs the generator
        # always the same.
        brighten, scale, saturate, rotate, swap = np.random.uniform(size=5) < _PROB
        brightness = np.random.uniform(-self.brightness_delta, self.brightness_delta)
        contrast = np.random.uniform(*self.contrast_range)
        saturation = np.random.uniform(*self.saturation_range)
        hue = np.random.uniform(-self.hue_delta, self.hue_delta)
        channels = tuple(np.random.permutation(3).tolist())
        if not (brighten or scale or saturate or rotate or swap):
            return T.NoOpTransform()
        return PhotometricTransform(
            brightness=brightness if brighten else 0.0,
            contrast=contrast if scale else 1.0,
            saturation=saturation if saturate else 1.0,
            hue=hue if rotate else 0.0,
            channels=channels if swap else (0, 1, 2),
            image_format=self.image_format,
        )


class PhotometricTransform(ColorTransform):
    """Change an image's colours; coordinates and segmentations stay as they are.

    An image of uint8 is computed in float32, and rounded and clipped to [0, 255] once, at the end.
    A floating point image keeps its dtype and is not clipped.

    Args:
        brightness: is added to all channels, in units of [0, 255].
        contrast: factor of all channels, after that.
        saturation: factor of the saturation.
        hue: degrees, added to the hue.
        channels: new channel i is the old channel `channels[i]`.
        image_format: "RGB" or "BGR".
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 1.0,
        saturation: float = 1.0,
        hue: float = 0.0,
        channels: Sequence[int] = (0, 1, 2),
        image_format: str = "RGB",
    ):
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.channels = channels
        self.image_format = image_format

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        check_color_image(img)
        # One contiguous plane a channel: numpy is several times faster than on (H, W, 3).
        planes = np.array(np.moveaxis(img, -1, 0), dtype=np.float32, order="C")
        if self.brightness != 0:
            planes += np.float32(self.brightness)
        if self.contrast != 1:
            planes *= np.float32(self.contrast)
        rgb = planes if self.image_format == "RGB" else planes[::-1]
        if self.hue != 0:
            for top in range(0, len(img), _STRIP):
                _change_hue(rgb[:, top : top + _STRIP], self.hue, self.saturation)
        elif self.saturation != 1:
            _scale_saturation(rgb, self.saturation)
        if np.issubdtype(img.dtype, np.integer):
            np.rint(planes, out=planes)
            np.clip(planes, 0, 255, out=planes)
        result = np.empty(img.shape, dtype=img.dtype)
        for new, old in enumerate(self.channels):
            result[..., new] = planes[old]
        return result


def _as_range(name: str, value: Sequence[float]) -> tuple[float, float]:
    """`value` as a tuple: a LazyConfig gives a ListConfig, which is slow.

    Raises:
        ValueError: not 0 <= low <= high.
    """
    value = tuple(value)
    if len(value) != 2 or not 0 <= value[0] <= value[1]:
        raise ValueError(f"Expected argument `{name}` to be 0 <= low <= high, but got {value}")
    return value


def _scale_saturation(rgb: np.ndarray, factor: float) -> None:
    """Multiply HSV's saturation of `rgb` (3, H, W) in place.

    With hue and value V = max(R, G, B) fixed, each channel's distance from V is proportional to
    the saturation, so no conversion to HSV and back is needed.
    """
    value = _max(rgb)
    rgb -= value
    rgb *= np.float32(factor)
    rgb += value


def _change_hue(rgb: np.ndarray, degrees: float, saturation: float) -> None:
    """Add to HSV's hue of `rgb` (3, H, W), and multiply the saturation, in place.

    HSV's value V and chroma C = V - min(R, G, B) are used as they are, not S = C / V, so that black
    and (after a change of brightness) negative pixels need no special case.
    """
    r, g, b = rgb
    value = _max(rgb)
    chroma = value - np.minimum(np.minimum(r, g), b)
    # hue in units of 60 degrees, from -1 to 5; grey pixels (chroma 0) get 0
    hue = np.where(
        value == r, g - b, np.where(value == g, b - r + 2 * chroma, r - g + 4 * chroma)
    ) / np.maximum(chroma, _TINY)
    hue += np.float32(degrees / 60)
    hue -= 6 * np.floor(hue / 6)
    chroma *= np.float32(saturation)
    value -= chroma  # from here on, the smallest channel
    # Each channel is full for a third of the circle: red around hue 0, green 2, blue 4.
    shares = (np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4))
    for plane, share in zip(rgb, shares, strict=True):
        np.clip(share, 0, 1, out=share)
        share *= chroma
        np.add(share, value, out=plane)


def _max(rgb: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(rgb[0], rgb[1]), rgb[2])
