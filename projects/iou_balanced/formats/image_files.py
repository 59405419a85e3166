"""Image files: size, EXIF orientation and mode from the header, and pixels of more than 8 bits."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

__all__ = [
    "ImageError",
    "ImageHeader",
    "check_pixel_range",
    "read_header",
    "scale_to_8_bits",
    "turn_boxes",
]

_ORIENTATION = 274  # the EXIF tag
_QUARTER_TURNS = (5, 6, 7, 8)


class ImageError(ValueError):
    """An image that cannot be used: one line that names the file.

    From a worker of a data loader it comes with the worker's traceback as its text; what is shown
    is the line.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if not text.startswith("Caught "):
            return text
        return text.rsplit(f"{type(self).__name__}: ", 1)[-1].strip()


class ImageHeader(NamedTuple):
    """What can be known of an image without its pixels."""

    width: int
    """In pixels, of the image turned as EXIF says, which is how Detectron2 reads it."""
    height: int
    """As the width."""
    stored: tuple[int, int]
    """(width, height) of the pixels in the file."""
    orientation: int
    """EXIF's, 1 to 8; 1 is upright."""
    mode: str
    """Pillow's; with ";16" where it has several channels of 16 bits."""

    @property
    def is_wide(self) -> bool:
        """Whether its values have more than 8 bits.

        Pillow clips those of one channel at 255, and takes the upper 8 bits of several.
        """
        return is_wide_mode(self.mode)

    @property
    def is_turned(self) -> bool:
        """Whether width and height change places."""
        return self.orientation in _QUARTER_TURNS


def read_header(path: str | os.PathLike) -> ImageHeader:
    """The header of an image; its pixels are not read.

    Args:
        path: of the image.

    Raises:
        FileNotFoundError: there is no such file.
        ImageError: it is no image that Pillow knows, or is damaged.
    """
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            return _header(image.size, orientation, mode_of(image))
    except FileNotFoundError:
        raise
    except Exception as e:  # damaged files make Pillow raise nearly anything
        raise ImageError(f"image {path} cannot be read ({type(e).__name__}: {e})") from e


def mode_of(image: Image.Image) -> str:
    """Pillow's mode of an image that was opened and not read, with ";16" for 16-bit channels."""
    has_16_bits = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return f"{image.mode};16" if has_16_bits and ";16" not in image.mode else image.mode


def is_wide_mode(mode: str) -> bool:
    """Whether values of this mode, see `mode_of`, have more than 8 bits."""
    return mode.startswith("I") or mode == "F" or mode.endswith(";16")


def _header(stored: tuple[int, int], orientation, mode: str) -> ImageHeader:
    if orientation not in range(1, 9):
        orientation = 1
    width, height = stored[::-1] if orientation in _QUARTER_TURNS else stored
    return ImageHeader(width, height, stored, orientation, mode)


def turn_boxes(boxes: Sequence[float], header: ImageHeader) -> list[float]:
    """A box on the image as it is shown, from one on the stored pixels.

    Coordinates are those of pixel edges: a box of the whole image is (0, 0, width, height).

    Args:
        boxes: one box, (x0, y0, x1, y1) on the stored pixels.
        header: of the image.
    """
    x0, y0, x1, y1 = boxes
    w, h = header.stored
    turn: dict[int, Callable] = {
        1: lambda x, y: (x, y),
        2: lambda x, y: (w - x, y),
        3: lambda x, y: (w - x, h - y),
        4: lambda x, y: (x, h - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (h - y, x),
        7: lambda x, y: (h - y, w - x),
        8: lambda x, y: (y, w - x),
    }
    (ax, ay), (bx, by) = (turn[header.orientation](x, y) for x, y in ((x0, y0), (x1, y1)))
    return [min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)]


def check_pixel_range(pixel_range) -> tuple[float, float] | str | None:
    """The argument `pixel_range` of the register functions, as plain values.

    Args:
        pixel_range: None, "image" or two numbers; a config may give them as text.

    Returns:
        None: images of more than 8 bits are refused; (low, high): these values become 0 and 255,
        values between them in proportion, and values beyond are cut off; "image": the lowest and
        the highest value of each image.

    Raises:
        ValueError: it is none of these.
    """
    if pixel_range is None or pixel_range == "image":
        return pixel_range
    try:
        low, high = (float(v) for v in pixel_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if isinstance(pixel_range, str) or not -np.inf < low < high < np.inf:
        raise ValueError(
            "Expected argument `pixel_range` to be None, 'image' or (low, high) with low < high, "
            f"the values of the file that become 0 and 255, but got {pixel_range!r}"
        )
    return low, high


def scale_to_8_bits(pixels: np.ndarray, pixel_range: tuple[float, float] | str) -> np.ndarray:
    """Scale pixels to 0..255.

    Args:
        pixels: (H, W) of any type.
        pixel_range: (low, high) or "image"; see `check_pixel_range`.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: a value is not finite.
    """
    pixels = pixels.astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(pixels))} of its pixels are not finite")
    low, high = (pixels.min(), pixels.max()) if pixel_range == "image" else pixel_range
    if high <= low:  # an image of one value
        return np.zeros(pixels.shape, dtype=np.uint8)
    scaled = (pixels - low) * (255.0 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
