#!/usr/bin/env bash
# faster-coco-eval 1.8.0 (with pycocotools' COCO class, as a drop-in for its COCOeval): the ids of
# the ground truth's annotations decide the score. With ids -1, -2, -3 a detector that finds all
# three objects has AP 0, without an error or a warning; pycocotools 2.0.11 gives 1 for it, and both
# give 1 with the ids 1, 2, 3. With the ids 0, 1, 2 both count the object of id 0 as missed.
#
# Output seen:
#   ids 1, 2, 3: pycocotools 1.000, faster-coco-eval 1.000
#   ids 0, 1, 2: pycocotools 0.442, faster-coco-eval 0.442
#   ids -1, -2, -3: pycocotools 1.000, faster-coco-eval 0.000
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    faster-coco-eval==1.8.0 pycocotools==2.0.11 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import sys

from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def score(evaluator, ids):
    boxes = [[10, 10, 30, 40], [100, 20, 50, 50], [200, 200, 80, 60]]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 400, "height": 400, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": number, "image_id": 1, "category_id": 1, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0,
            }
            for number, box in zip(ids, boxes)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in zip(boxes, (0.9, 0.8, 0.7))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = evaluator(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


expected = {(1, 2, 3): "1.000 1.000", (0, 1, 2): "0.442 0.442", (-1, -2, -3): "1.000 0.000"}
same = True
for ids, wanted in expected.items():
    found = [f"{score(evaluator, ids):.3f}" for evaluator in (COCOeval, COCOeval_faster)]
    print(f"ids {', '.join(map(str, ids))}: pycocotools {found[0]}, faster-coco-eval {found[1]}")
    same &= " ".join(found) == wanted
sys.exit(not same)
PYTHON
