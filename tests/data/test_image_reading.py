"""Images in training and inference: what fails is named, in any mapper, and nothing is clipped."""

import multiprocessing
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_test_loader,
    detection_utils,
)
from PIL import Image

from iou_balanced.data import image_reading, register_coco_json, register_voc_dir
from iou_balanced.data.image_reading import NamedErrors, install_reader
from iou_balanced.formats.image_files import ImageError


@pytest.fixture(autouse=True)
def no_ranges(monkeypatch):
    monkeypatch.setattr(image_reading, "_PIXEL_RANGES", {})


def mapper(is_train=True):
    return DatasetMapper(is_train=is_train, augmentations=[], image_format="BGR")


def cut(path):
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("format", ["BGR", "RGB", "L"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_same_pixels_as_detectron2(tmp_path, mode, format, orientation):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    noise = Image.effect_noise((8, 6), 90).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    noise.save(path, exif=exif)
    install_reader()
    expected = image_reading._stock_read_image(str(path), format)
    np.testing.assert_array_equal(detection_utils.read_image(str(path), format), expected)


def test_an_image_that_is_cut_off_is_named_by_detectron2s_mapper(make_voc):
    root = make_voc({"a": [("cat", (2, 2, 9, 9))]}, {"x": ["a"]})
    cut(root / "JPEGImages" / "a.jpg")
    (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="x"))
    with pytest.raises(ImageError, match=r"^image .*a\.jpg cannot be read \(OSError: image "):
        mapper()(record)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_line_from_a_worker_too(make_voc, workers):
    root = make_voc({"a": [], "b": [("cat", (2, 2, 9, 9))]}, {"x": ["a", "b"]})
    cut(root / "JPEGImages" / "b.jpg")
    records = DatasetCatalog.get(register_voc_dir(root=str(root), split="x"))
    loader = build_detection_test_loader(
        dataset=records, mapper=NamedErrors(mapper(is_train=False)), num_workers=workers
    )
    with pytest.raises(ImageError) as caught:
        list(loader)
    text = str(caught.value)
    assert text.startswith("image ") and "b.jpg cannot be read (OSError" in text
    assert "\n" not in text and "Traceback" not in text


def bad_polygon(record):
    record["annotations"][0]["segmentation"] = [[1.0, 2.0]]


def wrong_size(record):
    record["width"] = 41


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_size, r"a\.jpg.*\(40, 30\).*\(41, 30\).*has a wrong size for .*a\.jpg$"),
        (bad_polygon, r"^image .*a\.jpg cannot be used \("),
    ],
)
def test_other_errors_of_a_mapper_name_the_image(make_voc, change, message):
    root = make_voc({"a": [("cat", (2, 2, 9, 9))]}, {"x": ["a"]})
    (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="x"))
    change(record)
    stock = DatasetMapper(
        is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True
    )
    with pytest.raises(ImageError, match=message):
        NamedErrors(stock)(record)


def test_size_of_the_stored_pixels_is_told(make_voc, tmp_path):
    root = make_voc({"a": []}, {"x": ["a"]}, folder="f")
    exif = Image.Exif()
    exif[274] = 8
    path = root / "JPEGImages" / "a.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    record = {"file_name": str(path), "width": 40, "height": 30, "annotations": []}
    with pytest.raises(ImageError, match=r"stored turned \(EXIF orientation 8\).*exif_transpose"):
        NamedErrors(mapper())(record)


def test_a_mistake_in_a_mapper_keeps_its_traceback():
    def broken(record):
        return record["no such key"]

    with pytest.raises(KeyError, match="no such key"):
        NamedErrors(broken)({"file_name": "a.jpg"})


def wide(root, stem, mode, low=1000, high=5000):
    suffix, kind = (".tif", np.float32) if mode == "F" else (".png", np.uint16)
    values = np.linspace(low, high, 40 * 30).reshape(30, 40).astype(kind)
    (root / "JPEGImages" / f"{stem}.jpg").unlink()
    Image.fromarray(values).save(root / "JPEGImages" / f"{stem}{suffix}")
    return values


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_8_bits_are_refused_by_default(make_voc, caplog, mode):
    images = {"a": [("cat", (2, 2, 9, 9))], "b": [("cat", (2, 2, 9, 9))]}
    root = make_voc(images, {"x": ["a", "b"]})
    wide(root, "a", mode)
    (record,) = DatasetCatalog.get(register_voc_dir(root=str(root), split="x"))
    assert record["voc_id"] == "b"
    for part in ("1 x image of more than 8 bits", f": mode {mode}", "pixel_range="):
        assert part in caplog.text


@pytest.mark.parametrize("mode", ["I;16", "F"])
@pytest.mark.parametrize("pixel_range", [(2000, 4000), "image"])
def test_more_than_8_bits_are_scaled(make_voc, mode, pixel_range):
    root = make_voc({"a": [("cat", (2, 2, 9, 9))]}, {"x": ["a"]})
    values = wide(root, "a", mode).astype(np.float64)
    name = register_voc_dir(root=str(root), split="x", pixel_range=pixel_range)
    (record,) = DatasetCatalog.get(name)
    low, high = (1000, 5000) if pixel_range == "image" else pixel_range
    expected = np.rint(((values - low) * 255 / (high - low)).clip(0, 255))
    found = mapper()(record)["image"].numpy()
    assert found.shape == (3, 30, 40) and found.dtype == np.uint8
    for channel in found:
        np.testing.assert_allclose(channel, expected, atol=1)
    assert len(np.unique(found)) > 100


def test_of_coco_json_as_well(make_coco, caplog):
    json_file, root = make_coco()
    Image.new("I;16", (40, 30), 3000).save(root / "a.png")
    kwargs = {"json_file": str(json_file), "image_root": str(root)}
    assert len(DatasetCatalog.get(register_coco_json(name="refused", **kwargs))) == 1
    assert "a.png: mode I;16" in caplog.text
    name = register_coco_json(name="scaled", pixel_range=[0, 4000], **kwargs)
    images = [mapper()(r)["image"] for r in DatasetCatalog.get(name)]
    assert [int(image.max()) for image in images] == [0, 191]  # 3000 * 255 / 4000 = 191.25


def test_a_wide_image_that_no_loader_looked_at(tmp_path):
    # With a name that only JPEG files have, or in a data set that somebody else registered.
    Image.new("I;16", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    install_reader()
    record = {"file_name": str(tmp_path / "a.jpg"), "width": 4, "height": 3}
    with pytest.raises(ImageError, match=r"a\.jpg has more than 8 bits \(mode I;16\).*pixel_range"):
        mapper(is_train=False)(record)


def test_one_folder_with_two_ranges(make_voc):
    root = make_voc({"a": []}, {"x": ["a"], "y": ["a"]})
    with pytest.raises(ValueError, match="no classes"):
        register_voc_dir(root=str(root), split="x", pixel_range=[0, 10])
    with pytest.raises(ValueError, match=r"pixel_range \(0\.0, 10\.0\) already.*got image"):
        register_voc_dir(root=str(root), split="y", pixel_range="image")


def _read_in_process(pickled):
    from detectron2.data import detection_utils

    assert detection_utils.read_image.__module__.startswith("detectron2")
    return pickle.loads(pickled)()


class _Read:
    """Maps a record with a mapper; for a process that is started afresh."""

    def __init__(self, named, record):
        self.named, self.record = named, record

    def __call__(self):
        return int(self.named(self.record)["image"].max())


def test_in_a_worker_that_is_started_afresh(make_voc):
    root = make_voc({"a": [("cat", (2, 2, 9, 9))]}, {"x": ["a"]})
    wide(root, "a", "I;16")
    name = register_voc_dir(root=str(root), split="x", pixel_range=[0, 12750])
    (record,) = DatasetCatalog.get(name)
    job = pickle.dumps(_Read(NamedErrors(mapper()), record))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read_in_process, (job,)) == 100  # 5000 * 255 / 12750
    assert torch.is_tensor(mapper()(record)["image"])


def png_of_16_bits(path, value, channels):
    """A PNG of 20 x 10 whose channels have 16 bits, which Pillow can read and not write."""

    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    row = b"\0" + struct.pack(">H", value) * (20 * channels)
    header = struct.pack(">IIBBBBB", 20, 10, 16, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 10)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_several_channels_of_16_bits(tmp_path, channels):
    # Pillow takes the upper 8 bits: of a camera's 12 bits, nearly black.
    path = tmp_path / "a.png"
    png_of_16_bits(path, 4095, channels)
    with pytest.raises(ImageError, match=r"several channels of 16 bits .*pixel_range=\[0,65535\]"):
        image_reading.read_image(str(path), "BGR")
    image_reading.set_pixel_range(str(tmp_path), [0, 65535])
    assert (image_reading.read_image(str(path), "BGR") == 15).all()
    image_reading._PIXEL_RANGES.clear()
    image_reading.set_pixel_range(str(tmp_path), [0, 4095])
    with pytest.raises(ImageError, match="several channels of 16 bits"):
        image_reading.read_image(str(path), "BGR")
