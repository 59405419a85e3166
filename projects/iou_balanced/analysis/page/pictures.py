"""Finding and reading the images of a ground truth, and making them small."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from iou_balanced.formats.image_files import ImageError, is_wide_mode, mode_of, scale_to_8_bits

__all__ = ["ImageFinder", "Picture", "encode", "read_picture"]

_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".bmp", ".webp", ".tif")
# Longest side and quality, the best that fits.
_SIZES = ((560, 80), (480, 72), (400, 65), (320, 60), (240, 50), (160, 45))


class ImageFinder:
    """Where the files of images are: in a given folder, or beside the ground truth.

    Args:
        ground_truth: the path of a COCO JSON file, or a folder in VOC format; may be "".
        images: a folder, looked into first.

    Raises:
        ValueError: `images` is no folder.
    """

    def __init__(
        self, ground_truth: str | os.PathLike, images: str | os.PathLike | None = None
    ) -> None:
        self.folders: list[Path] = []
        if images is not None:
            if not Path(images).is_dir():
                raise ValueError(f"{os.fspath(images)} is no folder of images")
            self.folders.append(Path(images))
        path = Path(ground_truth)
        if not os.fspath(ground_truth):
            return
        if path.is_dir():
            self.folders += [path / "JPEGImages", path]
            return
        split = path.stem.rsplit("_", 1)[-1]  # instances_val2017.json beside val2017
        for folder in (path.parent, path.parent.parent):
            self.folders += [folder, folder / "images", folder / split, folder / "images" / split]

    def find(self, file_name: str) -> Path | None:
        """The file, by its path in one of the folders or by its name alone; None if it is in none.

        Args:
            file_name: as the ground truth has it; without an ending, the usual ones are tried.
        """
        if not file_name:
            return None
        names = dict.fromkeys((Path(file_name), Path(Path(file_name).name)))
        candidates = [folder / name for name in names for folder in self.folders]
        if Path(file_name).is_absolute():
            candidates.insert(0, Path(file_name))
        for candidate in candidates:
            for ending in _ENDINGS if not candidate.suffix else ("",):
                found = candidate.with_name(candidate.name + ending)
                if found.is_file():
                    return found
        return None


@dataclass
class Picture:
    """An image, scaled down."""

    image: Image.Image
    width: float
    """Of the pixels that boxes are counted in."""
    height: float
    note: str = ""
    """What is odd about it."""


def read_picture(path: str | os.PathLike, size: Sequence[float]) -> Picture:
    """Read an image as the data loader does: turned as EXIF says, unless boxes are on the stored
    pixels.

    Args:
        path: of the image.
        size: width and height that the ground truth states, 0 where it does not.

    Raises:
        ImageError: it cannot be read; names it.
    """
    try:
        with Image.open(path) as stored:
            image, note = _upright(stored, size)
            if is_wide_mode(mode_of(stored)) and not image.mode.startswith("RGB"):
                pixels = scale_to_8_bits(np.asarray(image), "image")
                image, note = Image.fromarray(pixels), "Shown from its lowest to its highest value."
            image = image.convert("RGB")
    except Exception as e:  # damaged files make Pillow raise nearly anything
        raise ImageError(f"image {path} cannot be read ({type(e).__name__}: {e})") from e
    width, height = size if all(size) else image.size
    if all(size) and not note and abs(width / height - image.width / image.height) > 0.02:
        note = (
            f"The file has {image.width} \u00d7 {image.height} pixels, the ground truth says "
            f"{width:g} \u00d7 {height:g}: boxes may be elsewhere."
        )
    image.thumbnail((_SIZES[0][0],) * 2, Image.Resampling.LANCZOS)
    return Picture(image, float(width), float(height), note)


def _upright(stored: Image.Image, size: Sequence[float]) -> tuple[Image.Image, str]:
    image = ImageOps.exif_transpose(stored)
    if image.size != stored.size and tuple(size) == stored.size:
        return stored, "Drawn as stored, not turned as EXIF says, because the boxes are so too."
    return image, ""


def encode(pictures: Sequence[Picture], num_bytes: float) -> list[bytes]:
    """JPEG files that take together, in base64, about `num_bytes` at most, as far as it goes."""
    for side, quality in _SIZES:
        files = [_jpeg(picture.image, side, quality) for picture in pictures]
        if sum(map(len, files)) * 4 / 3 <= num_bytes:
            break
    return files if pictures else []


def _jpeg(image: Image.Image, side: int, quality: int) -> bytes:
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
