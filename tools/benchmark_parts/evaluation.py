"""COCO evaluation at the size of val2017: time, peak memory and how far metrics are from
pycocotools', each scorer in a process of its own."""

import contextlib
import functools
import importlib.util
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

COLUMNS = ["scorer", "seconds", "peak MiB", "largest difference"]
# Package on PyPI -> module and class, called as pycocotools' COCOeval is.
SCORERS = {
    "pycocotools": ("pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "COCOeval_faster"),
    "Detectron2's COCOEvaluator": ("detectron2.evaluation", "COCOEvaluator"),
    "ours": ("iou_balanced.evaluation", "COCOBoxEvaluator"),
    "ours, faster-coco-eval": ("iou_balanced.evaluation", "COCOBoxEvaluator"),
    "hotcoco": ("hotcoco", "COCOeval"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools.cocoeval", "COCOeval"),
}


def make_set(images: int, classes: int = 80, per_image: int = 100) -> tuple[dict, list[dict]]:
    """Objects as COCO has them (7 an image, of skewed classes), detections around and off them."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, classes + 1)
    annotations, detections = [], []
    for image in range(1, images + 1):
        number = int(rng.poisson(7))
        corner, sides = rng.uniform(0, 400, (number, 2)), rng.lognormal(4, 1, (number, 2))
        labels = rng.choice(classes, number, p=shares / shares.sum()) + 1
        boxes = np.concatenate([corner, sides.clip(2, 300)], 1)
        for box, label in zip(boxes, labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [float(v) for v in box],
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
        for _i in range(per_image):
            hit = number and rng.random() < 0.6
            which = rng.integers(number) if hit else -1
            box = boxes[which] if hit else [*rng.uniform(0, 400, 2), *rng.lognormal(4, 1, 2)]
            noise = rng.normal(0, 0.1, 4) * max(box[2], box[3])
            label = labels[which] if hit and rng.random() < 0.8 else rng.integers(classes) + 1
            detections.append(
                {
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [float(v) for v in np.maximum(np.array(box) + noise, 1)],
                    "score": float(np.round(rng.beta(1 + 2 * bool(hit), 4), 4)),
                }
            )
    truth = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": str(i)} for i in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, detections


def _score(scorer, truth, detections):
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        scored = scorer(gt, gt.loadRes(detections), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return np.asarray(scored.stats, dtype=float)[:12]


def _evaluate(evaluator_class, truth, detections, **kwargs):
    """By a Detectron2 evaluator: the same metrics, AP to APl, as shares of 1."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        DatasetCatalog.register("benchmark", list)
        ids = {i: i - 1 for i in range(1, len(truth["categories"]) + 1)}
        MetadataCatalog.get("benchmark").set(
            json_file=str(path),
            thing_classes=[x["name"] for x in truth["categories"]],
            thing_dataset_id_to_contiguous_id=ids,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = evaluator_class("benchmark", ("bbox",), False, **kwargs)
            evaluator.reset()
            of_image = {x["id"]: [] for x in truth["images"]}
            for x in detections:
                of_image[x["image_id"]].append({**x, "category_id": x["category_id"] - 1})
            evaluator._predictions = [
                {"image_id": i, "instances": found} for i, found in of_image.items()
            ]
            metrics = evaluator.evaluate()["bbox"]
    return np.array([metrics[x] / 100 for x in ("AP", "AP50", "AP75", "APs", "APm", "APl")])


def _in_process(connection, row: str, module: str, name: str, truth, detections) -> None:
    try:
        scorer = getattr(importlib.import_module(module), name)
        if name.endswith("Evaluator"):
            options = {"scorer": "faster-coco-eval"} if row == "ours, faster-coco-eval" else {}
            score = functools.partial(_evaluate, scorer, **options)
        else:
            score = functools.partial(_score, scorer)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        stats = score(truth, detections)
        seconds = time.process_time() - start
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        connection.send((seconds, peak, stats))
    except Exception as error:  # said in the table
        connection.send(f"{type(error).__name__}: {error}")


def rows(args) -> list[list]:
    """The table, in the order of `COLUMNS`; a scorer that is not installed has no row."""
    truth, detections = make_set(args.evaluation_images)
    context, found = multiprocessing.get_context("fork"), {}
    for name, (module, cls) in SCORERS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue
        ours, theirs = context.Pipe()
        arguments = (theirs, name, module, cls, truth, detections)
        process = context.Process(target=_in_process, args=arguments)
        process.start()
        theirs.close()
        try:
            found[name] = ours.recv()
        except EOFError:  # killed, for memory perhaps
            found[name] = ""
        process.join()
        found[name] = found[name] or f"ended with status {process.exitcode}"
    if isinstance(found["pycocotools"], str):
        sys.exit(f"error: pycocotools, the reference: {found['pycocotools']}")
    reference = found["pycocotools"][2]
    table = []
    for name, result in found.items():
        if isinstance(result, str):
            table.append([name, result, "-", "-"])
        else:
            seconds, peak, stats = result
            table.append(
                [name, seconds, peak, float(np.abs(stats - reference[: len(stats)]).max())]
            )
    return table
