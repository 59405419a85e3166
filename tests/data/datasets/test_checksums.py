"""What was made here is used only while it holds what was written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iou_balanced.data.datasets.cache import cached_file, check_content
from iou_balanced.data.datasets.checksums import CHECKSUMS, changed_files, sha256_of
from iou_balanced.data.datasets.digits import generate_digits

ARGUMENTS = {"split": "train", "num_images": 4, "image_size": 48, "seed": 0}


@pytest.fixture
def digits(tmp_path):
    pytest.importorskip("sklearn")
    return Path(generate_digits(root=str(tmp_path), **ARGUMENTS))


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def another_picture(path):
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(path)


@pytest.mark.parametrize("damage", [cut, flip, empty, another_picture, os.remove])
def test_a_damaged_image_of_the_digits(digits, damage):
    damage(digits / "images" / "000003.png")
    message = rf"^{digits} is damaged: images/000003\.png .*: delete the folder to have it made an"
    with pytest.raises(ValueError, match=message):
        generate_digits(root=str(digits.parent), **ARGUMENTS)


def test_fewer_annotations_than_were_written(digits):
    path = digits / "annotations.json"
    data = json.loads(path.read_text())
    del data["annotations"][-1]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"annotations\.json is not what was written: delete"):
        generate_digits(root=str(digits.parent), **ARGUMENTS)


def test_several_are_counted_and_a_damaged_list_is_named(digits):
    for name in ("000001.png", "000002.png"):
        cut(digits / "images" / name)
    with pytest.raises(ValueError, match=r"000001\.png is not what was written, and 1 more: del"):
        generate_digits(root=str(digits.parent), **ARGUMENTS)
    cut(digits / CHECKSUMS)
    with pytest.raises(ValueError, match=rf"^{digits / CHECKSUMS} cannot be read"):
        generate_digits(root=str(digits.parent), **ARGUMENTS)


def test_whole_ones_are_taken_also_without_the_list(digits):
    sums = json.loads((digits / CHECKSUMS).read_text())
    assert len(sums) == 5 and changed_files(str(digits)) == []
    assert generate_digits(root=str(digits.parent), **ARGUMENTS) == str(digits)
    (digits / CHECKSUMS).unlink()  # as those of earlier versions
    assert generate_digits(root=str(digits.parent), **ARGUMENTS) == str(digits)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_images", True), ("seed", True), ("imbalance", float("nan")), ("imbalance", "x")],
)
def test_arguments(tmp_path, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be "):
        generate_digits(root=str(tmp_path), **{**ARGUMENTS, argument: value})


def test_sha256_of_a_known_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


class TestCachedFile:
    def made(self, root, text="content"):
        def make(path):
            self.calls += 1
            with open(path, "w") as f:
                f.write(text)

        return cached_file("a.json", root=str(root), topic="test", make=make)

    def setup_method(self):
        self.calls = 0

    def test_it_is_made_once(self, tmp_path):
        path = self.made(tmp_path)
        assert self.made(tmp_path) == path and self.calls == 1

    @pytest.mark.parametrize("damage", [cut, flip, empty])
    def test_a_damaged_one_is_refused_and_kept(self, tmp_path, damage):
        path = Path(self.made(tmp_path))
        check_content(str(path))
        damage(path)
        damaged = path.read_bytes()
        with pytest.raises(
            FileExistsError, match=rf"^{path} is not what was written to it: delete"
        ):
            check_content(self.made(tmp_path))
        assert path.read_bytes() == damaged and self.calls == 1

    def test_one_of_an_earlier_version_stays(self, tmp_path):
        (tmp_path / "iou_balanced").mkdir()
        (tmp_path / "iou_balanced" / "a.json").write_text("earlier")
        path = self.made(tmp_path)
        check_content(path)
        assert Path(path).read_text() == "earlier" and self.calls == 0
