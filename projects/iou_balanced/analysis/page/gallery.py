"""The images that made the differences, with the boxes of each run, as plain data for the page."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from iou_balanced.analysis.changes import MAX_FALSE
from iou_balanced.analysis.data import Analysis
from iou_balanced.formats.class_names import list_names
from iou_balanced.formats.image_files import ImageError

from .numbers import signed
from .pictures import ImageFinder, Picture, encode, read_picture

__all__ = ["choose_images", "default_score", "make_gallery"]

_MAX_BOXES = 60  # of the highest scores, in a panel
_HIGHEST_DEFAULT = 0.3


def make_gallery(
    analysis: Analysis, finder: ImageFinder, *, num_images: int, num_bytes: float
) -> dict:
    """What the page shows of images.

    Args:
        analysis: of one or more runs.
        finder: of the images' files.
        num_images: the most that are drawn.
        num_bytes: about what their files may take in the page.

    Returns:
        images: each with its data URI, panels of boxes, contributions and the classes (by number)
        that it is shown for; missing: what could not be drawn, in words; by_class: number of the
        class -> its images in words; score: boxes below it are hidden at first.
    """
    details = {x["image_id"]: x for x in analysis.changes.get("images", [])}
    chosen = [details[i] for i in choose_images(analysis, num_images) if i in details]
    pictures, missing = _read(chosen, finder)
    files = encode([picture for _, picture in pictures], num_bytes)
    score = default_score([detail for detail, _ in pictures])
    several = len(analysis.classes) > 1
    images = [
        {
            "name": Path(detail["file_name"]).name or detail["image_id"],
            "uri": f"data:image/jpeg;base64,{base64.b64encode(file).decode('ascii')}",
            "width": picture.width,
            "height": picture.height,
            "is_small": max(picture.width, picture.height) < 200,
            "note": picture.note,
            "contributions": _contributions(analysis, detail["image_id"]),
            "classes": _classes_of(analysis, detail["image_id"]),
            "panels": [
                _panel(detail, run, index, picture, score, several)
                for index, run in enumerate(analysis.runs)
            ],
        }
        for (detail, picture), file in zip(pictures, files, strict=True)
    ]
    drawn = {detail["image_id"] for detail, _ in pictures}
    return {
        "images": images,
        "missing": missing,
        "by_class": _by_class(analysis, drawn),
        "score": score,
    }


def changed(analysis: Analysis) -> Mapping[str, Mapping]:
    """Run -> its images and those of its classes; of a single run, those that lower its AP."""
    return analysis.changes.get("differences") or analysis.changes.get("runs") or {}


def choose_images(analysis: Analysis, number: int) -> list:
    """Image ids: half of them by the mean over the classes, the others class by class."""
    found = changed(analysis).values()
    whole = _ranked(x for changes in found for x in changes["images"])
    of_class = [
        _ranked(x for changes in found for x in changes["classes"].get(row["name"], []))
        for row in analysis.classes
    ]
    chosen = dict.fromkeys(list(whole)[: math.ceil(number / 2)])
    for place in range(max(map(len, of_class), default=0)):
        rows = [list(ranked.items())[place] for ranked in of_class if len(ranked) > place]
        chosen |= dict.fromkeys(i for i, _ in sorted(rows, key=lambda row: -row[1]))
    return list(chosen | dict.fromkeys(whole))[:number]


def default_score(details: Sequence[Mapping]) -> float:
    """Where each run shows about as many boxes as there are objects, and at most 0.3."""
    number = sum(len(detail["objects"]) for detail in details)
    lowest = _HIGHEST_DEFAULT
    for run in details[0]["runs"] if details else ():
        scores = sorted((x["score"] for d in details for x in d["runs"][run]), reverse=True)
        lowest = min(lowest, scores[min(number, len(scores)) - 1] if scores else lowest)
    return math.floor(20 * lowest) / 20


def _ranked(rows) -> dict:
    """Image id -> size of its contribution, largest first."""
    sizes: dict = {}
    for row in rows:
        size = abs(row["contribution"])
        sizes[row["image_id"]] = max(size, sizes.get(row["image_id"], 0.0))
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _read(details: Sequence[Mapping], finder: ImageFinder) -> tuple[list, list[str]]:
    found, absent, missing = [], [], []
    for detail in details:
        path = finder.find(detail["file_name"])
        if path is None:
            absent.append(str(detail["file_name"] or detail["image_id"]))
            continue
        try:
            size = (detail["width"] or 0, detail["height"] or 0)
            found.append((detail, read_picture(path, size)))
        except ImageError as e:
            missing.append(str(e))
    if absent:
        folders = list_names([str(folder) for folder in finder.folders]) or "no folder"
        missing.insert(
            0,
            f"{len(absent)} of {len(details)} images are not found, first {absent[0]}; looked in "
            f"{folders}. --images DIR names their folder.",
        )
    return found, missing


def _panel(
    detail: Mapping, run: str, index: int, picture: Picture, score: float, several: bool
) -> dict:
    boxes = sorted(detail["runs"][run], key=lambda box: -box["score"])[:_MAX_BOXES]
    met = {box["object"] for box in boxes if box["status"] == "true" and box["score"] >= score}
    objects = [
        {
            "place": _place(item["bbox"], picture),
            "kind": "crowd" if item["crowd"] or item["ignored"] else "object",
            "title": item["class"],
        }
        for item in detail["objects"]
    ]
    total = sum(item["kind"] == "object" for item in objects)
    false = sum(box["status"] == "false" and box["score"] >= score for box in boxes)
    others = sum(box["status"] != "true" and box["score"] >= score for box in boxes)
    false = f"{false}{' or more' if others == MAX_FALSE else ''} false"
    return {
        "run": run,
        "index": index,
        "objects": objects,
        "boxes": [_box(box, picture, several) for box in reversed(boxes)],  # the best on top
        "alt": f"{detail['file_name']}, {run}: {len(met)} of {total} objects found, {false} "
        f"boxes, of score {score:.2f} and more",
        "text": f"{len(met)} of {total} found, {false}",
    }


def _box(box: Mapping, picture: Picture, several: bool) -> dict:
    numbers = f"{box['score']:.2f}\u2009/\u2009{box['iou']:.2f}"
    name = box["class"]
    cut = name if len(name) <= 14 else f"{name[:13]}\u2026"
    return {
        "place": _place(box["bbox"], picture),
        "status": box["status"],
        "score": f"{box['score']:.3f}",
        "label": f"{cut} {numbers}" if several else numbers,
        "title": f"{name}: score {box['score']:.3f}, IoU {box['iou']:.3f}, {box['status']}",
        "is_low": box["bbox"][1] < 0.06 * picture.height,
        "is_right": box["bbox"][0] > 0.7 * picture.width,
    }


def _place(bbox: Sequence[float], picture: Picture) -> str:
    """As CSS, in percent of the image."""
    x, y, w, h = bbox
    values = (x / picture.width, y / picture.height, w / picture.width, h / picture.height)
    names = ("left", "top", "width", "height")
    return ";".join(f"{k}:{100 * v:.4g}%" for k, v in zip(names, values, strict=True))


def _contributions(analysis: Analysis, image_id) -> list[str]:
    """Of this image to each difference, or to the AP of a single run."""
    several = len(analysis.runs) > 1
    texts = []
    for run, changes in changed(analysis).items():
        for row in changes["images"]:
            if row["image_id"] == image_id:
                who = f"{run}: " if several else ""
                texts.append(f"{who}{signed(row['contribution'], 2)} points of AP")
    return texts


def _classes_of(analysis: Analysis, image_id) -> list[int]:
    return [
        k
        for k, row in enumerate(analysis.classes)
        for changes in changed(analysis).values()
        if any(x["image_id"] == image_id for x in changes["classes"].get(row["name"], []))
    ]


def _by_class(analysis: Analysis, drawn: set) -> list[dict]:
    result = []
    for row in analysis.classes:
        rows = [
            x
            for changes in changed(analysis).values()
            for x in changes["classes"].get(row["name"], [])
        ]
        listed = dict.fromkeys(
            f"{x['file_name'] or x['image_id']} ({signed(x['contribution'], 2)})" for x in rows
        )
        result.append(
            {
                "name": row["name"],
                "num_drawn": len({x["image_id"] for x in rows} & drawn),
                "listed": list(listed),
            }
        )
    return result
