import hashlib
import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from iou_balanced.data import generate_digits, register_digits
from iou_balanced.data.datasets import digits
from iou_balanced.data.datasets.digit_scenes import (
    MAX_SIDE,
    MIN_SIDE,
    VISIBLE,
    digit_sources,
    draw_scene,
    stroke_mask,
)

SMALL = {"split": "train", "num_images": 12, "image_size": 64, "seed": 3}


def _annotations(folder):
    return json.loads((Path(folder) / "annotations.json").read_text())


def _hashes(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


def test_registers_and_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    name = register_digits(**SMALL)
    assert name == "digits_train_12_64px_s3"
    assert register_digits(**SMALL) == name
    assert MetadataCatalog.get(name).thing_classes == [str(k) for k in range(10)]
    assert MetadataCatalog.get(name).json_file == str(tmp_path / name / "annotations.json")
    dicts = DatasetCatalog.get(name)
    assert len(dicts) == 12
    for record in dicts:
        assert Image.open(record["file_name"]).size == (64, 64)
        assert 1 <= len(record["annotations"]) <= 6
        for annotation in record["annotations"]:
            assert annotation["iscrowd"] == 0
            _, _, w, h = annotation["bbox"]
            # a pixel or so off, because masks are cut tight
            assert MIN_SIDE * 64 - 3 <= max(w, h) <= MAX_SIDE * 64 + 3


def test_same_bytes_each_time_and_others_for_another_seed(tmp_path):
    first, again = (generate_digits(root=str(tmp_path / r), **SMALL) for r in "ab")
    assert len(_hashes(first)) == 14
    assert _hashes(first) == _hashes(again)
    other = generate_digits(root=str(tmp_path / "a"), **{**SMALL, "seed": 4})
    assert not set(_hashes(first)) & set(_hashes(other))
    assert [p.name for p in (tmp_path / "a").iterdir() if "partial" in p.name] == []


def test_box_is_the_extent_of_the_visible_strokes():
    # a bar of 2 x 6 cells in an empty 8 x 8 square: 12 x 36 pixels when blown up by 6
    source = np.zeros((8, 8), np.float32)
    source[1:7, 3:5] = 1.0
    mask = stroke_mask(source, 36, 12)
    assert mask.shape == pytest.approx((36, 12), abs=2)
    for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert side.max() >= VISIBLE


def test_boxes_agree_with_the_pixels(monkeypatch):
    # On a flat background without noise the digits are all that differs from it.
    background = 90.0
    monkeypatch.setattr(
        "iou_balanced.data.datasets.digit_scenes._texture",
        lambda rng, size: np.full((size, size, 3), background, np.float32),
    )

    class Quiet:
        """The generator, but blur and noise are off."""

        def __init__(self, seed):
            self._rng = np.random.default_rng(seed)

        def __getattr__(self, name):
            return getattr(self._rng, name)

        def random(self):
            return 0.9

        def normal(self, loc, scale, size):
            return np.zeros(size)

    sources = digit_sources("train")
    for seed in range(10):
        image, (digit,) = draw_scene(Quiet(seed), 96, [seed], sources)
        drawn = np.abs(image.astype(float) - background).sum(-1) > 15
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        extent = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert digit.label == seed
        assert digit.box == extent


def test_digits_of_train_and_val_are_disjoint():
    train, val = digit_sources("train"), digit_sources("val")
    assert [len(t) + len(v) for t, v in zip(train, val, strict=True)] == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    for t, v in zip(train, val, strict=True):
        assert not {x.tobytes() for x in t} & {x.tobytes() for x in v}
        assert len(v) == pytest.approx(0.2 * (len(t) + len(v)), abs=1)


def test_quotas():
    # Shares are 100 ** (-k / 9): 1, 0.5995, 0.3594, 0.2154, 0.1292, 0.0774, 0.0464, 0.0278, 0.0167,
    # 0.01, in all 2.4818. Of 2482 digits the classes would get 1000.08, 599.53, 359.41, 215.46,
    # 129.16, 77.43, 46.42, 27.83, 16.68, 10.00: whole parts are 2478, and the four with the most
    # rounded away get one more.
    quotas = digits.class_quotas(2482, 100.0)
    assert quotas.tolist() == [1000, 600, 359, 216, 129, 77, 46, 28, 17, 10]
    assert digits.class_quotas(103, 1.0).tolist() == [11, 11, 11, 10, 10, 10, 10, 10, 10, 10]
    assert digits.class_quotas(30, 1000.0).min() == 1  # rare, but there


def test_long_tail(tmp_path):
    args = {"root": str(tmp_path), "num_images": 150, "image_size": 64, "seed": 0}
    folder = generate_digits(**args, split="train", long_tail=True)
    assert Path(folder).name == "digits_train_lt100_150_64px_s0"
    classes = [a["category_id"] - 1 for a in _annotations(folder)["annotations"]]
    counts = np.bincount(classes, minlength=10)
    wanted = digits.class_quotas(int(counts.sum()), 100.0)
    # a digit in a hundred finds no place
    assert np.abs(counts - wanted).max() <= 0.05 * counts.sum()
    assert (np.diff(counts) <= 0).all()
    assert counts[9] >= 1

    # val stays balanced: it is the very same data set
    val = generate_digits(**{**args, "num_images": 4}, split="val", long_tail=True)
    assert val == generate_digits(**{**args, "num_images": 4}, split="val")


def test_two_processes_make_one_complete_set(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    workers = [context.Process(target=_generate, args=(str(tmp_path), i, start)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    made = [(tmp_path / f"made_by_{i}").read_text() for i in range(2)]
    assert sorted(made) == ["0", "1"]  # one wrote, the other waited
    folder = tmp_path / "digits_train_12_64px_s3"
    assert _hashes(folder) == _hashes(generate_digits(root=str(tmp_path / "alone"), **SMALL))


def _generate(root, number, start):
    calls = []
    write = digits._write
    digits._write = lambda *args: (calls.append(args), time.sleep(0.5), write(*args))
    start.wait(30)
    generate_digits(root=root, **SMALL)
    (Path(root) / f"made_by_{number}").write_text(str(len(calls)))


def test_interrupted_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(digits.json, "dump", fail)
        with pytest.raises(KeyboardInterrupt):
            generate_digits(root=str(tmp_path), **SMALL)
    folder = tmp_path / "digits_train_12_64px_s3"
    assert not folder.exists()
    stray = tmp_path / "digits_train_12_64px_s3.partial" / "images" / "999999.png"
    stray.write_bytes(b"")
    generate_digits(root=str(tmp_path), **SMALL)
    assert len(list((folder / "images").iterdir())) == 12
    assert not stray.parent.parent.exists()


def test_damaged_or_older_folders_are_refused(tmp_path):
    folder = Path(generate_digits(root=str(tmp_path), **SMALL))
    file = folder / "annotations.json"
    data = json.loads(file.read_text())
    data["info"]["version"] = "0"
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"s3 was made by version 0 .* delete it"):
        generate_digits(root=str(tmp_path), **SMALL)
    file.unlink()
    with pytest.raises(ValueError, match=r"s3 is not a complete digits data set .*: delete it"):
        generate_digits(root=str(tmp_path), **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, "split must be 'train' or 'val', but got 'test'"),
        ({"num_images": 0}, "num_images must be an integer >= 1, but got 0"),
        ({"image_size": 16}, "image_size must be an integer >= 32, but got 16"),
        ({"seed": -1}, "seed must be an integer >= 0, but got -1"),
        ({"imbalance": 0.5}, "imbalance must be 1 or more, but got 0.5"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        generate_digits(root=str(tmp_path), **{**SMALL, **change})
    assert list(tmp_path.iterdir()) == []


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        generate_digits(root=str(tmp_path), **SMALL)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
