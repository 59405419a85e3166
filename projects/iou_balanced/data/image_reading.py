"""Reading of images in training and inference: what fails is named, and nothing is clipped.

Detectron2's mappers look their reader up as `detection_utils.read_image` when they need it, in v0.6
and in main alike, and no argument reaches it. `install_reader` puts one there that reads the same
pixels; it is called by whatever registers a data set or builds a loader here.
"""

import copy
import os
import random
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from iou_balanced.formats.image_files import (
    ImageError,
    check_pixel_range,
    is_wide_mode,
    mode_of,
    scale_to_8_bits,
)
from iou_balanced.formats.image_files import read_header as _read_header

__all__ = ["ON_BAD_IMAGE", "NamedErrors", "install_reader", "pixel_range_of", "set_pixel_range"]

ON_BAD_IMAGE = ("error", "skip")
SKIPPED = "skipped_images"
"""Key of a mapper's output: (file name, reason) of each image that it stands in for."""
_MOST_IN_A_ROW = 100

_stock_read_image = detection_utils.read_image
# folder -> how to scale what has more than 8 bits there
_PIXEL_RANGES: dict[str, tuple[float, float] | str] = {}


def install_reader() -> None:
    """Let Detectron2's mappers read images by `read_image`."""
    if detection_utils.read_image is _stock_read_image:
        detection_utils.read_image = read_image


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """As `detectron2.data.detection_utils.read_image`: (H, W, C), turned as EXIF says.

    Images of more than 8 bits are scaled as the data set's `pixel_range` says.

    Args:
        file_name: a path or address.
        format: "RGB", "BGR" or another of Detectron2's; None keeps the file's.

    Raises:
        ImageError: the file cannot be read to its end, or has more than 8 bits and no range is
            given; names it.
    """
    try:
        with PathManager.open(file_name, "rb") as f, Image.open(f) as image:
            mode = mode_of(image)
        if not is_wide_mode(mode):
            return _stock_read_image(file_name, format)
        pixel_range = pixel_range_of(file_name)
        if not can_scale(mode, pixel_range):
            raise ImageError(wide_image_text(file_name, mode))
        if not mode.startswith(("I", "F")):  # of several channels, Pillow takes the upper 8 bits
            return _stock_read_image(file_name, format)
        with PathManager.open(file_name, "rb") as f, Image.open(f) as image:
            turned = detection_utils._apply_exif_orientation(image)
            scaled = scale_to_8_bits(np.asarray(turned), pixel_range)
        return detection_utils.convert_PIL_to_numpy(Image.fromarray(scaled), format)
    except ImageError:
        raise
    except Exception as e:  # damaged files make Pillow raise nearly anything
        raise ImageError(f"image {file_name} cannot be read ({_kind(e)}{e})") from e


def can_scale(mode: str, pixel_range) -> bool:
    """Whether the range can be had: of several channels of 16 bits only (0, 65535)."""
    if mode.startswith(("I", "F")):
        return pixel_range is not None
    return pixel_range == (0.0, 65535.0)


def wide_image_text(file_name: str, mode: str) -> str:
    """The refusal of an image of more than 8 bits."""
    if not mode.startswith(("I", "F")):
        return (
            f"image {file_name} has several channels of 16 bits (mode {mode}), of which the upper "
            "8 can be read: pixel_range=[0,65535] says that this is meant; for another range save "
            "it with 8 bits"
        )
    return (
        f"image {file_name} has more than 8 bits (mode {mode}), of which all above 255 would be "
        "clipped: say how to scale it where the data set is registered, pixel_range=[low, high] "
        "or pixel_range=image (of a prediction: --pixel-range low,high or image)"
    )


def set_pixel_range(folder: str, pixel_range) -> tuple[float, float] | str | None:
    """Scale images of more than 8 bits below a folder.

    Args:
        folder: its subfolders too, unless they have a range of their own.
        pixel_range: see `check_pixel_range`.

    Raises:
        ValueError: a bad range, or the folder has another one already.
    """
    pixel_range = check_pixel_range(pixel_range)
    folder = os.path.abspath(folder)
    known = _PIXEL_RANGES.get(folder)
    if pixel_range is None or known == pixel_range:
        return pixel_range
    if known is not None:
        raise ValueError(
            f"the images in {folder} have the pixel_range {known} already, in another data set, "
            f"but got {pixel_range}"
        )
    _PIXEL_RANGES[folder] = pixel_range
    return pixel_range


def pixel_range_of(file_name: str) -> tuple[float, float] | str | None:
    """The range of the innermost folder that has one; None where none has.

    Args:
        file_name: path of an image.
    """
    folder = os.path.dirname(os.path.abspath(file_name))
    while _PIXEL_RANGES and folder not in _PIXEL_RANGES and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return _PIXEL_RANGES.get(folder)


class NamedErrors:
    """A dataset mapper whose errors name the image.

    What is wrong with an image or its boxes becomes an `ImageError`, of one line; any other error
    of the mapper, which may be its author's mistake, keeps its traceback.

    Args:
        mapper: from a dict in Detectron2's format to the model's input.
        replacements: dicts as the mapper gets them, one of which takes the place of an image that
            cannot be used; what came instead of which is in the output's `SKIPPED`. Which one
            depends on the name of the file only. None: the error is raised.

    Raises:
        ImageError: in a call, such an error; with `replacements`, of 100 others too.
    """

    def __init__(self, mapper: Callable[[dict], dict], replacements: Sequence[dict] | None = None):
        self.mapper, self.replacements = mapper, replacements
        # A process that is started afresh has neither the reader nor the ranges.
        self._pixel_ranges = dict(_PIXEL_RANGES)

    def __call__(self, dataset_dict: dict) -> dict:
        install_reader()
        _PIXEL_RANGES.update(self._pixel_ranges)
        skipped: list[tuple[str, str]] = []
        others: list[int] = []
        record = dataset_dict
        while True:
            file_name = _name_of(record)
            try:
                output = self._map(record)
            except ImageError as e:
                if self.replacements is None:
                    raise
                skipped.append((file_name, str(e)))
                others = others or self._others(dataset_dict)
                if len(skipped) > len(others):
                    raise ImageError(
                        f"{len(dict(skipped))} images in a row cannot be used, the last one: {e}"
                    ) from e
                record = self.replacements[others[len(skipped) - 1]]
                record = copy.deepcopy(record)  # a mapper may change its input
                continue
            if skipped:
                output[SKIPPED] = skipped
            return output

    def _others(self, dataset_dict: dict) -> list[int]:
        """Which ones are tried in its place: from everywhere, as neighbours are bad together."""
        generator = random.Random(zlib.crc32(_name_of(dataset_dict).encode()))
        most = min(_MOST_IN_A_ROW, len(self.replacements))
        return generator.sample(range(len(self.replacements)), most)

    def _map(self, dataset_dict: dict) -> dict:
        try:
            return self.mapper(dataset_dict)
        except ImageError:
            raise
        except detection_utils.SizeMismatchError as e:
            file_name = dataset_dict["file_name"]
            raise ImageError(f"{_one_line(e)}{_why_other_size(file_name, dataset_dict)}") from e
        except (OSError, ValueError, ArithmeticError, AssertionError) as e:
            file_name = _name_of(dataset_dict)
            raise ImageError(f"image {file_name} cannot be used ({_kind(e)}{_one_line(e)})") from e

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mapper!r})"


def _name_of(record: dict) -> str:
    return str(record.get("file_name", record.get("image_id", "?")))


def _why_other_size(file_name: str, record: dict) -> str:
    try:
        header = _read_header(file_name)
    except (OSError, ImageError):
        return ""
    stated = (record.get("width"), record.get("height"))
    if header.is_turned and stated == header.stored:
        return (
            f": image {file_name} is stored turned (EXIF orientation {header.orientation}), and "
            "its size and boxes are those of the stored pixels. Turn the pixels (Pillow's "
            "ImageOps.exif_transpose) or the boxes, or take the orientation out of the file"
        )
    return f": the annotation file is of other images, or has a wrong size for {file_name}"


def _kind(error: Exception) -> str:
    return "" if isinstance(error, ValueError) else f"{type(error).__name__}: "


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
