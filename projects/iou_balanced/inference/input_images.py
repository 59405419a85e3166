"""Images as the test loader of a config gives them to the model, from files and from memory."""

import os
from collections.abc import Callable

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import detection_utils
from PIL import Image

from iou_balanced.data.image_reading import NamedErrors, install_reader, set_pixel_range
from iou_balanced.engine import UserError
from iou_balanced.formats.image_files import check_pixel_range

ORDERS = ("BGR", "RGB")


class InputImages:
    """Makes the model's input of an image: with the config's own test mapper, so with its numbers.

    Args:
        mapper: of the config's test loader, from a dict with "file_name" to the model's input.
        pixel_range: how files of more than 8 bits are scaled, as of the functions that register
            data sets; None refuses them.

    Raises:
        ValueError: a bad `pixel_range`.
    """

    def __init__(self, mapper: Callable[[dict], dict], pixel_range=None):
        install_reader()
        self.pixel_range = check_pixel_range(pixel_range)
        self.mapper = mapper if isinstance(mapper, NamedErrors) else NamedErrors(mapper)

    @property
    def image_format(self) -> str | None:
        """The channels' order that the model takes, such as "BGR"; None where it is not known."""
        return getattr(self.mapper.mapper, "image_format", None)

    @property
    def augmentations(self) -> list | None:
        """The test augmentations one after the other; None where they are not known."""
        found = getattr(self.mapper.mapper, "augmentations", None)
        return None if found is None else list(getattr(found, "augs", [found]))

    def from_file(self, path: str | os.PathLike) -> dict:
        """ "image" (C, H, W) for the network; "height" and "width" of the image in the file.

        The image is turned as EXIF says, as in training.

        Raises:
            ImageError: it cannot be read or used; names the file.
        """
        set_pixel_range(os.path.dirname(path), self.pixel_range)
        return self.mapper({"file_name": str(path), "image_id": str(path)})

    def from_array(self, image: np.ndarray, order: str) -> dict:
        """As `from_file`, of pixels.

        Args:
            image: (H, W, 3) uint8 with channels in `order`, or gray, (H, W) or (H, W, 1).
            order: "BGR" or "RGB".

        Raises:
            ValueError: the array is something else.
            UserError: the mapper is not Detectron2's or a subclass, and takes files only.
        """
        pixels = detection_utils.convert_PIL_to_numpy(_as_pil(image, order), self._known_format())
        aug_input = T.AugInput(pixels)
        self.mapper.mapper.augmentations(aug_input)
        # As Detectron2's mapper has it.
        channels_first = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        height, width = image.shape[:2]
        return {"image": torch.as_tensor(channels_first), "height": height, "width": width}

    def from_pil(self, image: Image.Image) -> dict:
        """As `from_file`, of Pillow's image, turned as its EXIF says."""
        turned = detection_utils._apply_exif_orientation(image)
        return self.from_array(np.asarray(turned.convert("RGB")), "RGB")

    def _known_format(self) -> str:
        if self.image_format is None or self.augmentations is None:
            raise UserError(
                f"the test mapper {self.mapper.mapper!r} has no image_format and augmentations, as "
                "Detectron2's DatasetMapper has them, so that it can be given files only: give "
                "paths of images"
            )
        return self.image_format


def check_order(order: str, name: str) -> None:
    """Check the order of an image's channels.

    Args:
        order: is to be "BGR" or "RGB".
        name: of the argument, for the message.

    Raises:
        ValueError: it is something else.
    """
    if order not in ORDERS:
        raise ValueError(f"Expected argument `{name}` to be one of {ORDERS}, but got {order!r}")


def _as_pil(image: np.ndarray, order: str) -> Image.Image:
    check_order(order, "image_format")
    gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(
            "Expected an image to be uint8 of shape (H, W, 3), (H, W, 1) or (H, W), but got "
            f"{image.dtype} of shape {image.shape}"
        )
    if 0 in image.shape:
        raise ValueError(f"Expected an image with pixels, but got the shape {image.shape}")
    if gray:
        return Image.fromarray(image.reshape(image.shape[:2])).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(image if order == "RGB" else image[:, :, ::-1]))
