import pickle
import traceback

import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from iou_balanced.formats.image_files import (
    ImageError,
    check_pixel_range,
    read_header,
    scale_to_8_bits,
    turn_boxes,
)


def save(path, size=(40, 30), mode="RGB", orientation=None, **kwargs):
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.new(mode, size).save(path, exif=exif, **kwargs)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_turned_as_detectron2_turns_pixels(tmp_path, orientation):
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    box = (5, 8, 17, 12)
    pixels[8:12, 5:17] = 255
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    shown = detection_utils.read_image(str(path), "RGB")
    header = read_header(path)
    assert (header.height, header.width) == shown.shape[:2]
    assert header.stored == (40, 30) and header.orientation == orientation
    x0, y0, x1, y1 = turn_boxes(box, header)
    inside = np.zeros(shown.shape[:2], dtype=bool)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(inside, shown[..., 0] == 255)


def test_an_orientation_that_does_not_exist(tmp_path):
    assert read_header(save(tmp_path / "a.jpg", orientation=9)).orientation == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"])
def test_modes(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("I", "F") else "a.png")
    Image.new(mode, (4, 3)).save(path)
    header = read_header(path)
    assert header.is_wide == (mode in ("I;16", "I", "F"))


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"a\.jpg cannot be read"):
        read_header(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "b.jpg")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), ("image", "image"), ([0, 65535], (0.0, 65535.0)), (("1", 2.5), (1.0, 2.5))],
)
def test_pixel_range(given, expected):
    assert check_pixel_range(given) == expected


@pytest.mark.parametrize(
    "bad", ["full", 255, [0], [5, 5], [9, 1], [0, float("inf")], [0, 1, 2], "01", [None, 3]]
)
def test_bad_pixel_range(bad):
    with pytest.raises(ValueError, match=r"`pixel_range` to be None, 'image' or \(low, high\)"):
        check_pixel_range(bad)


def test_scaling():
    pixels = np.array([[0, 100], [600, 1200]], dtype=np.uint16)
    # (100, 1100) to (0, 255): 600 is in the middle, 127.5, and even is nearest
    np.testing.assert_array_equal(scale_to_8_bits(pixels, (100, 1100)), [[0, 0], [128, 255]])
    np.testing.assert_array_equal(scale_to_8_bits(pixels, "image"), [[0, 21], [128, 255]])
    assert not scale_to_8_bits(np.full((2, 2), 7.0), "image").any()
    with pytest.raises(ValueError, match="1 of its pixels are not finite"):
        scale_to_8_bits(np.array([[np.nan, 1.0]]), "image")


def test_error_from_a_worker_is_one_line():
    # What torch makes of an error in a worker: the same class, with the traceback as its text.
    try:
        try:
            raise OSError("cut off")
        except OSError as e:
            raise ImageError("image a.jpg cannot be read (OSError: cut off)") from e
    except ImageError:
        text = "Caught ImageError in DataLoader worker process 0.\nOriginal "
        text += traceback.format_exc()
    assert str(ImageError(text)) == "image a.jpg cannot be read (OSError: cut off)"
    assert str(pickle.loads(pickle.dumps(ImageError("plain")))) == "plain"
