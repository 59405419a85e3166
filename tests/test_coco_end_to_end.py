"""COCO's official files, as far as a test can have them: train, evaluate, write for the server."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/COCO/retinanet_R_50_FPN_1x_iou_balanced.py"
TEST_DEV = "configs/COCO/retinanet_R_50_FPN_1x_iou_balanced_test_dev.py"
CATEGORIES = [
    {"id": c["id"], "name": c["name"], "supercategory": "any"}
    for c in COCO_CATEGORIES
    if c["isthing"]
]
SIZES = [(96, 128), (128, 96), (110, 110), (80, 140)]  # height, width
SMALL = ["train.device=cpu", "dataloader.test.num_workers=0"] + [
    f"dataloader.{split}.mapper.augmentations.0.{key}"
    for split in ("train", "test")
    for key in ("short_edge_length=96", "max_size=128")
]


def write_images(folder, rng):
    folder.mkdir(parents=True)
    images = []
    for i, (height, width) in enumerate(SIZES, start=1):
        name = f"{i:012d}.jpg"
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": i, "file_name": name, "height": height, "width": width})
    return images


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    """$DETECTRON2_DATASETS with coco/: the last image has no box, the one before a crowd only."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    annotations = root / "coco/annotations"
    annotations.mkdir(parents=True)
    crowd = {"counts": [0, 80 * 80], "size": [80, 80]}  # as COCO has it: run lengths, no polygon
    for split in ("train2017", "val2017"):
        content = {"images": write_images(root / "coco" / split, rng), "categories": CATEGORIES}
        boxes = [(1, 1, 0), (1, 90, 1), (2, 44, 0), (2, 13, 0), (3, 18, 1)]
        content["annotations"] = [
            {
                "id": n,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [10.5 + n, 12.25, 40.0, 50.5],
                "area": 1900.0,
                "iscrowd": iscrowd,
                "segmentation": crowd if iscrowd else [[12, 14, 50, 14, 50, 60]],
            }
            for n, (image_id, category_id, iscrowd) in enumerate(boxes, start=1)
        ]
        (annotations / f"instances_{split}.json").write_text(json.dumps(content))
    content = {"images": write_images(root / "coco/test2017", rng), "categories": CATEGORIES}
    (annotations / "image_info_test-dev2017.json").write_text(json.dumps(content))
    return root


def train_net(root, config, *arguments):
    # Detectron2 registers COCO at import, with the root of that moment: so in another process.
    env = {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "tools/train_net.py", "--config-file", config, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def test_official_coco_files(coco_root, tmp_path):
    options = [
        *SMALL,
        f"train.output_dir={tmp_path}/run",
        "train.max_iter=2",
        "train.log_period=1",
        "train.reference_batch_size=null",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
    ]
    # Frozen BatchNorm on random weights is refused, with the overrides that would do.
    refused = train_net(coco_root, CONFIG, *options, "train.init_checkpoint=''")
    assert refused.returncode == 1
    scratch = re.search(r"train from scratch: (train\.init_checkpoint.*)", refused.stderr)[1]
    overrides = scratch.replace("''", "").split()
    assert len(overrides) > 1

    done = train_net(coco_root, CONFIG, *options, *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(x) for x in (tmp_path / "run/metrics.json").read_text().splitlines()]
    record = {k: v for r in records for k, v in r.items()}
    assert record["w_loc"] == 3.049 and record["loss_box_reg"] > 0
    assert {"bbox/AP", "bbox/AP90", "bbox/AP-person", "bbox/AP-toothbrush"} <= set(record)
    with open(tmp_path / "run/inference/coco_metrics.csv") as f:
        metrics = dict(csv.reader(f))
    assert sum(name.startswith("bbox/AP-") for name in metrics) == 80

    # After two iterations it detects nothing: let it see toothbrushes, the last class, everywhere.
    model = tmp_path / "run/model_final.pth"
    weights = torch.load(model, weights_only=True)["model"]
    weights["head.cls_score.bias"].view(-1, 80)[:, 79] = 2.0
    torch.save({"model": weights}, model)
    done = train_net(
        coco_root,
        TEST_DEV,
        "--eval-only",
        *SMALL,
        *overrides[1:],  # the norm is the model's
        f"train.init_checkpoint={model}",
        f"train.output_dir={tmp_path}/test_dev",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(tmp_path / "run")  # hundreds of megabytes that pytest would keep
    written = tmp_path / "test_dev/inference/detections_test-dev2017_retinanet_results.json"
    results = json.loads(written.read_text())
    assert {r["image_id"] for r in results} == {1, 2, 3, 4}
    assert {r["category_id"] for r in results} == {90}  # COCO's id of class 79
    assert all(set(r) == {"image_id", "category_id", "bbox", "score"} for r in results)
    with zipfile.ZipFile(written.with_suffix(".zip")) as archive:
        assert archive.namelist() == [written.name]
        assert json.loads(archive.read(written.name)) == results
    assert not (tmp_path / "test_dev/inference/coco_metrics.csv").exists()
