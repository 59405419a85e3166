#!/usr/bin/env bash
# tidecv 1.0.1: what mending localization alone gains depends on detections of other classes. An
# object notes the false detection of the highest score that is about it, and keeps one note for
# localization and classification errors together (BestGTMatch in tidecv/errors/error.py: gt
# "best_id"). Mending one of the two kinds then deletes a detection that is not the noted one,
# though the detection noted is of the other kind, stays as it is, and does not find the object.
#
# The paper (arXiv 2008.08115) mends one kind at a time: a mended detection is a true one, and goes
# only if it would be a duplicate of one with a higher score.
#
# Here a cat and a dog are to be found. The dog is. The cat has a "cat" of IoU 1/3 with score 0.8
# and, in the second and third case, a "dog" exactly on it. AP50 is 50: the mean of dog 100, cat 0.
#   localization mended:   the "cat" gets the cat's box, cat 100: gain 50 in all three cases.
#   classification mended: the "dog" on the cat becomes a "cat". With score 0.9 it is first, cat
#                          100: gain 50. With score 0.7 it is behind the false "cat", precision
#                          1/2 at recall 1, cat 50: gain 25.
# pycocotools 2.0.11 gives these gains on the detections mended by hand.
#
# Output seen:
#   "cat" alone:           Loc tidecv 50.0, pycocotools 50.0; Cls tidecv 0.0, pycocotools 0.0
#   with a "dog" of 0.9:   Loc tidecv 0.0, pycocotools 50.0; Cls tidecv 50.0, pycocotools 50.0
#   with a "dog" of 0.7:   Loc tidecv 50.0, pycocotools 50.0; Cls tidecv 0.0, pycocotools 25.0
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# tidecv asks for opencv-python, which needs libraries of a desktop; the headless one does as well.
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    pycocotools==2.0.11 numpy==2.2.6 opencv-python-headless==4.12.0.88 matplotlib==3.10.8 \
    seaborn==0.13.2 pandas==2.3.3 appdirs==1.4.4
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps tidecv==1.0.1
cd "$folder"
MPLCONFIGDIR="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, datasets

CAT, DOG = 1, 2
CAT_BOX, DOG_BOX = [20, 20, 40, 40], [120, 20, 40, 40]
SHIFTED_BOX = [40, 20, 40, 40]  # 20 * 40 / (2 * 40 * 40 - 20 * 40) = 1/3


def detection(category, box, score):
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


def write(name, content):
    with open(name, "w") as file:
        json.dump(content, file)
    return name


def write_truth():
    return write("truth.json", {
        "images": [{"id": 1, "width": 200, "height": 100, "file_name": "a.jpg"}],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
        "annotations": [
            {
                "id": number, "image_id": 1, "category_id": category, "bbox": [x, y, w, h],
                "area": w * h, "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
            for number, (category, (x, y, w, h)) in enumerate([(CAT, CAT_BOX), (DOG, DOG_BOX)], 1)
        ],
    })


def tidecv_gains(detections):
    tide = TIDE()
    tide.evaluate(
        datasets.COCO(path=truth), datasets.COCOResult(write("results.json", detections)),
        mode=TIDE.BOX, name="run",
    )
    gains = tide.get_main_errors()["run"]
    assert round(tide.runs["run"].ap, 3) == 50, "AP50 before anything is mended"
    return gains["Loc"], gains["Cls"]


def ap50(detections):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[1]


def gains_by_hand(others):
    found_dog, shifted = detection(DOG, DOG_BOX, 0.95), detection(CAT, SHIFTED_BOX, 0.8)
    before = ap50([found_dog, shifted, *others])
    assert round(before, 3) == 50, "AP50 before anything is mended"
    localization = [found_dog, detection(CAT, CAT_BOX, 0.8), *others]
    classification = [found_dog, shifted, *(other | {"category_id": CAT} for other in others)]
    return ap50(localization) - before, ap50(classification) - before


truth = write_truth()
cases = {
    '"cat" alone:        ': ([], "50.0 50.0 0.0 0.0"),
    'with a "dog" of 0.9:': ([detection(DOG, CAT_BOX, 0.9)], "0.0 50.0 50.0 50.0"),
    'with a "dog" of 0.7:': ([detection(DOG, CAT_BOX, 0.7)], "50.0 50.0 0.0 25.0"),
}
same = True
for name, (others, wanted) in cases.items():
    detections = [detection(DOG, DOG_BOX, 0.95), detection(CAT, SHIFTED_BOX, 0.8), *others]
    pairs = zip(tidecv_gains(detections), gains_by_hand(others))
    found = [f"{round(gain, 1) + 0:.1f}" for pair in pairs for gain in pair]
    print(
        f"{name}   Loc tidecv {found[0]}, pycocotools {found[1]}; "
        f"Cls tidecv {found[2]}, pycocotools {found[3]}"
    )
    same &= " ".join(found) == wanted
sys.exit(not same)
PYTHON
