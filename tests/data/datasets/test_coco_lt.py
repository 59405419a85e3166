"""COCO-LT: its profile, what is drawn from a small COCO, when it is drawn, what is missing."""

import json
import logging
import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from detectron2.data import DatasetCatalog, MetadataCatalog

from iou_balanced.data import (
    COCO_LT_BIN_EDGES,
    COCO_LT_BINS,
    COCO_LT_PROFILE,
    register_coco_lt,
)
from iou_balanced.data.datasets import coco_lt
from iou_balanced.data.datasets.coco_lt_profile import coco_lt_targets
from iou_balanced.data.datasets.coco_lt_sampling import sample_annotations

from ...processes import run_in_two_processes
from .coco_lt_tree import SCALE, small_coco, write_coco


@pytest.fixture(scope="module")
def source():
    return small_coco()


@pytest.fixture
def root(tmp_path, monkeypatch, source):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    write_coco(tmp_path / "coco", source)
    return tmp_path / "coco"


@pytest.fixture
def drawn(monkeypatch):
    """The paths that were written."""
    written = []
    original = coco_lt.write_sample

    def write(source, path, recipe):
        original(source, path, recipe)
        written.append(Path(path))

    monkeypatch.setattr(coco_lt, "write_sample", write)
    return written


def register(root, again=False, **kwargs):
    """The JSON file of the training set; `again`: as a new process would."""
    if again:
        coco_lt._training_file.cache_clear()
    name = register_coco_lt(split="train", root=str(root), **kwargs)
    return Path(MetadataCatalog.get(name).json_file)


def instances(data):
    """Class name -> ids of the annotations that are no crowd regions, in their order."""
    names = {c["id"]: c["name"] for c in data["categories"]}
    found = {name: [] for name in names.values()}
    for a in data["annotations"]:
        if not a["iscrowd"]:
            found[names[a["category_id"]]].append(a["id"])
    return found


def test_the_profile_is_the_paper_s():
    assert list(COCO_LT_PROFILE) == MetadataCatalog.get("coco_2017_val").thing_classes
    # as the authors' evaluation prints it, "bin ins nums: [4, 24, 32, 20]"
    assert [len(classes) for classes in COCO_LT_BINS] == [4, 24, 32, 20]
    assert COCO_LT_BIN_EDGES == (1, 20, 400, 8000)
    for low, high, classes in zip(
        COCO_LT_BIN_EDGES, (20, 400, 8000, 10**6), COCO_LT_BINS, strict=True
    ):
        assert all(low <= COCO_LT_PROFILE[c] < high for c in classes)
    assert sum(COCO_LT_PROFILE.values()) == 666_493
    tail = {"fire hydrant": 11, "parking meter": 12, "frisbee": 14, "toothbrush": 15}
    assert {c: COCO_LT_PROFILE[c] for c in COCO_LT_BINS[0]} == tail

    targets = coco_lt_targets()
    assert list(targets) == list(COCO_LT_PROFILE)
    assert {c for c, t in targets.items() if t is None} == set(COCO_LT_BINS[-1])
    assert all(t in (None, COCO_LT_PROFILE[c]) for c, t in targets.items())
    scaled = coco_lt_targets(0.1)
    assert (scaled["person"], scaled["cow"], scaled["toothbrush"]) == (None, 708, 2)
    assert coco_lt_targets(0.001)["toothbrush"] == 1


def test_what_is_drawn(root, source, caplog):
    caplog.set_level(logging.INFO)
    path = register(root, scale=SCALE)
    data = json.loads(path.read_text())
    found = instances(data)
    available = instances(source)
    for name, target in coco_lt_targets(SCALE).items():
        assert set(found[name]) <= set(available[name])
        assert len(found[name]) == (len(available[name]) if target is None else target), name

    # Nothing is changed or reordered, and crowd regions stay where an instance does.
    kept = set().union(*found.values())
    image_ids = {a["image_id"] for a in source["annotations"] if a["id"] in kept}
    assert data["images"] == [x for x in source["images"] if x["id"] in image_ids]
    assert 200 < len(data["images"]) < len(source["images"]) - 20
    assert data["annotations"] == [
        a
        for a in source["annotations"]
        if a["id"] in kept or (a["iscrowd"] and a["image_id"] in image_ids)
    ]
    assert (data["categories"], data["licenses"]) == (source["categories"], source["licenses"])

    info = data["info"]
    seen = [a for a in source["annotations"] if a["image_id"] in image_ids and not a["iscrowd"]]
    unlabelled = len(seen) - len(kept)
    assert unlabelled > 500 and sum(info["unlabelled"].values()) == unlabelled
    assert info["instances"] == {name: len(ids) for name, ids in found.items()}
    assert (info["seed"], info["scale"], info["version"]) == (0, SCALE, coco_lt.FORMAT_VERSION)
    assert info["source"]["file"] == "instances_train2017.json" and info["images"] == len(image_ids)
    assert info["source_info"] == source["info"] and len(info["source_sha256"]) == 64

    assert "| toothbrush     |          15 |           1 |" in caplog.text
    assert "4 instances of the 4 classes of [1, 20)" in caplog.text
    assert f"{unlabelled} objects" in caplog.text


def columns(data, shuffled=None):
    annotations = list(data["annotations"])
    if shuffled is not None:
        random.Random(shuffled).shuffle(annotations)
    ids = [image["id"] for image in data["images"]]
    category_ids = sorted(c["id"] for c in data["categories"])
    return (
        np.array([category_ids.index(a["category_id"]) for a in annotations]),
        np.array([ids.index(a["image_id"]) for a in annotations]),
        np.array([bool(a["iscrowd"]) for a in annotations]),
        np.array([a["id"] for a in annotations]),
    )


def test_one_number_for_each_annotation_decides(source):
    targets = coco_lt_targets(SCALE)
    number = dict(
        zip(
            sorted(a["id"] for a in source["annotations"]),
            np.random.PCG64(7).random_raw(len(source["annotations"])).tolist(),
            strict=True,
        )
    )
    expected = set()
    for name, ids in instances(source).items():
        expected |= set(sorted(ids, key=number.get)[: targets[name]])
    for shuffled in (None, 1):
        arrays = columns(source, shuffled)
        kept = sample_annotations(*arrays, targets, num_images=600, seed=7).kept
        assert set(arrays[3][kept & ~arrays[2]]) == expected


def test_the_same_on_any_machine():
    """The least four of twelve numbers of PCG64(1): what was drawn once stays drawn."""
    ids, zero = np.arange(12) * 10**11, np.zeros(12, int)
    sample = sample_annotations(zero, zero, zero > 0, ids, {"cat": 4}, num_images=1, seed=1)
    assert np.flatnonzero(sample.kept).tolist() == [2, 4, 7, 9]
    assert np.flatnonzero(sample.unlabelled).tolist() == [0, 1, 3, 5, 6, 8, 10, 11]


def test_each_instance_has_the_same_chance():
    images = np.array([0, 0, 0, 0, 1, 2])  # a herd, and two that are alone
    zero, ids = np.zeros(6, int), np.arange(6)
    kept = [
        sample_annotations(zero, images, zero > 0, ids, {"zebra": 2}, num_images=3, seed=s).kept
        for s in range(1000)
    ]
    # 1/3 each; the standard deviation of the mean is sqrt(2/9/1000) = 0.015
    np.testing.assert_allclose(np.mean(kept, axis=0), 1 / 3, atol=0.06)


def test_drawn_once(root, source, drawn, tmp_path):
    path = register(root, scale=SCALE)
    assert path.parent == root / "iou_balanced" and drawn == [path]
    assert register(root, again=True, scale=SCALE) == path and len(drawn) == 1
    content = path.read_bytes()

    other = register(root, scale=SCALE, seed=1)
    assert drawn == [path, other] and path.read_bytes() == content
    first, second = instances(json.loads(content)), instances(json.loads(other.read_text()))
    assert first["cow"] != second["cow"] and len(first["cow"]) == len(second["cow"])
    assert first["person"] == second["person"]

    copy = tmp_path / "copy"
    write_coco(copy, source)
    assert register(copy, scale=SCALE, name="copy").read_bytes() == content

    source = {**source, "info": {"description": "a new version"}}
    write_coco(root, source)
    newer = register(root, again=True, scale=SCALE, name="newer")
    assert newer not in (path, other) and path.read_bytes() == content


@pytest.mark.parametrize("text", ["somebody's", '{"info": {"seed": 0}, "images": []}', '{"info": '])
def test_no_file_is_written_over(root, text):
    path = register(root, scale=SCALE)
    path.write_text(text)
    with pytest.raises(FileExistsError, match=f"{path} is there, but it is not the COCO-LT"):
        register(root, again=True, scale=SCALE)
    assert path.read_text() == text


def test_a_root_that_cannot_be_written(root, tmp_path):
    (root / "iou_balanced").write_text("in the way, for root too")
    path = register(root, scale=SCALE)
    assert path.parent == tmp_path / "iopath" / "iou_balanced" / "coco_lt"
    assert register(root, again=True, scale=SCALE) == path


def _draw_slowly(folder, rank):
    """One of two processes that want the file at once; each drawing takes a second, is noted."""
    original = coco_lt.write_sample

    def write(source, path, recipe):
        time.sleep(1.0)
        original(source, path, recipe)
        Path(folder, f"drawn_by_{rank}").touch()

    coco_lt.write_sample = write
    dist.barrier()
    name = register_coco_lt(split="train", root=f"{folder}/coco", scale=SCALE)
    return len(DatasetCatalog.get(name))


def test_two_processes_draw_it_once(root, tmp_path):
    (tmp_path / "processes").mkdir()
    results = run_in_two_processes(partial(_draw_slowly, str(tmp_path)), tmp_path / "processes")
    assert results[0] == results[1] > 200
    assert len(list(tmp_path.glob("drawn_by_*"))) == 1


def test_the_published_file_comes_first(root, source, drawn, tmp_path):
    published = write_coco(root, source, "train_coco2017_sampled_1.json")
    assert register(root) == published
    published = write_coco(root, source, "train_coco2017_LT_sampled.json")
    assert register(root, again=True, name="readme") == published
    elsewhere = write_coco(tmp_path / "other", source, "mine.json")
    assert register(root, json_file=str(elsewhere), name="mine") == elsewhere
    (root / "annotations/instances_train2017.json").unlink()
    assert register(root, again=True, name="alone") == published and not drawn
