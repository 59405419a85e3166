"""One HTML page that compares runs: metrics, boxes on images, and the plots of Figure 3.

The page holds everything in itself (pictures as base64), so that it can be opened without a network
and sent to somebody as one file.
"""

import base64
import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from tabulate import tabulate

from iou_balanced.analysis.localization import match_detections, rank_correlation
from iou_balanced.evaluation import plots
from iou_balanced.files import write_atomically

from .metrics import MAIN_METRICS


@dataclass(frozen=True)
class Run:
    """One trained model.

    Args:
        name: shown in every table and legend; runs of one report have different names.
        metrics: what `COCOBoxEvaluator.evaluate()` returned: {"bbox": {metric: value}}, its inner
            dict, or the flat form with "bbox/AP". Values in 0..100.
        detections: dicts with image_id, category_id, bbox (XYWH, pixels) and score, as in
            `coco_instances_results.json`.
    """

    name: str
    metrics: Mapping
    detections: Sequence[Mapping] = field(default=(), repr=False)

    def box_metrics(self) -> dict[str, float]:
        """{metric: value} of the boxes."""
        metrics = self.metrics.get("bbox", self.metrics)
        return {str(key).removeprefix("bbox/"): value for key, value in metrics.items()}


def format_comparison(runs: Sequence[Run]) -> str:
    """The main metrics side by side, as a table for the terminal.

    Rows are metrics, columns runs; every run but the first is followed by its difference to the
    first. One decimal; "-" where a value is undefined or missing.

    Args:
        runs: the baseline first.
    """
    _check(runs)
    headers = ["metric", runs[0].name]
    for run in runs[1:]:
        headers += [run.name, "diff"]
    rows = []
    for metric, values in _table(runs, _main_metrics(runs)):
        row = [metric, _number(values[0], "-")]
        for value in values[1:]:
            row += [_number(value, "-"), _difference(value, values[0])]
        rows.append(row)
    # The cells are finished text: tabulate must not parse them as numbers and drop the plus signs.
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=align)


def write_comparison_report(
    path: str | os.PathLike,
    runs: Sequence[Run],
    *,
    coco_gt: COCO,
    images: Mapping[int, str | os.PathLike] | None = None,
    title: str = "Comparison of detectors",
    notes: Mapping[str, object] | None = None,
    score_thresh: float = 0.3,
    match_score_thresh: float = 0.05,
) -> Path:
    """Write the page, replacing a former one.

    Args:
        path: the HTML file.
        runs: one or more; differences are to the first.
        coco_gt: ground truth of all runs.
        images: image id -> file, for the images to show; a few.
        title: heading of the page.
        notes: hardware, seed, iterations, duration and so on, shown as they are.
        score_thresh: boxes with a lower score are not drawn.
        match_score_thresh: detections with a lower score are left out of the plots.

    Returns:
        `path`.

    Raises:
        ValueError: no run, or two runs of the same name.
        ImportError: matplotlib is missing.
    """
    _check(runs)
    matched = {
        run.name: match_detections(coco_gt, run.detections, score_thresh=match_score_thresh)
        for run in runs
    }
    parts = [
        f"<h1>{_text(title)}</h1>",
        _notes(notes or {}),
        "<h2>Average precision</h2>",
        "<p>In percent, on all images of the set. In brackets: difference to "
        f"<em>{_text(runs[0].name)}</em>.</p>"
        if len(runs) > 1
        else "<p>In percent.</p>",
        _metrics_table(runs, _main_metrics(runs)),
        "<h2>Score and localization</h2>",
        f"<p>Every detection with a score of at least {match_score_thresh:g}, and its IoU with the "
        "best box of its class. Left: a detector whose score tells the IoU climbs steeply. Right: "
        "higher is better localized.</p>",
        '<div class="side">',
        _picture(plots.plot_score_by_iou(matched), "Mean classification score in each IoU range"),
        _picture(plots.plot_fraction_above_iou(matched), "Detections above each IoU threshold"),
        "</div>",
        _localization_table(matched),
        *_image_parts(runs, coco_gt, images or {}, score_thresh),
        *_class_parts(runs),
    ]
    page = _PAGE.format(title=_text(title), body="\n".join(part for part in parts if part))
    return write_atomically(path, lambda file: file.write(page))


def _check(runs):
    names = [run.name for run in runs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected argument `runs` to have distinct names, but got {names}")


def _main_metrics(runs) -> list[str]:
    """Also those of tail and head classes, where a run has them."""
    found = {metric for run in runs for metric in run.box_metrics()}
    return [*MAIN_METRICS, *(metric for metric in ("AP_tail", "AP_head") if metric in found)]


def _table(runs, metrics):
    """(metric, its value in each run), NaN where it is missing."""
    values = [run.box_metrics() for run in runs]
    for metric in metrics:
        yield metric, [float(v.get(metric, math.nan)) for v in values]


def _metrics_table(runs, metrics, *, prefix=""):
    rows = []
    for metric, values in _table(runs, metrics):
        cells = [_number(values[0])]
        for value in values[1:]:
            change = _difference(value, values[0])
            if change == "-":
                cells.append(_number(value))
                continue
            tone = {"+": "up", "-": "down"}.get(change[0], "same")
            cells.append(f'{_number(value)} <span class="{tone}">({_minus(change)})</span>')
        rows.append((_text(metric.removeprefix(prefix)), cells))
    return _html_table(["", *(_text(run.name) for run in runs)], rows)


def _localization_table(matched):
    rows = [
        ("detections", [f"{len(m.scores):,}" for m in matched.values()]),
        ("mean IoU [%]", [_number(100 * _mean(m.ious)) for m in matched.values()]),
        (
            "rank correlation of score and IoU",
            [_minus(_number(rank_correlation(*m), digits=3)) for m in matched.values()],
        ),
    ]
    return _html_table(["", *map(_text, matched)], rows)


def _image_parts(runs, coco_gt, images, score_thresh):
    if not images:
        return
    yield "<h2>Images</h2>"
    yield (
        f"<p>Boxes with a score of at least {score_thresh:g}, with class and score. Thin yellow: "
        "ground truth.</p>"
    )
    names = {i: category["name"] for i, category in coco_gt.cats.items()}
    for image_id, file in images.items():
        panels = [
            (
                run.name,
                [
                    found
                    for found in run.detections
                    if found["image_id"] == image_id and found["score"] >= score_thresh
                ],
            )
            for run in runs
        ]
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        png = plots.draw_boxes(pixels, coco_gt.imgToAnns[image_id], panels, names)
        name = Path(file).name
        counts = ", ".join(f"{run}: {len(found)} boxes" for run, found in panels)
        yield _picture(png, f"{name}. {counts}", caption=name)


def _class_parts(runs):
    metrics = dict.fromkeys(m for run in runs for m in run.box_metrics() if m.startswith("AP-"))
    if metrics:
        yield "<h2>AP of each class</h2>"
        yield _metrics_table(runs, metrics, prefix="AP-")


def _notes(notes):
    items = (f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in notes.items())
    return f"<dl>{''.join(items)}</dl>" if notes else ""


def _html_table(headers, rows):
    """All arguments are HTML already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in headers)
    body = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _picture(png, alt, caption=None):
    data = base64.b64encode(png).decode("ascii")
    caption = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{_text(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}{caption}</figure>"


def _number(value, undefined="\u2013", digits=1):
    return f"{value:.{digits}f}" if math.isfinite(value) else undefined


def _difference(value, first):
    """Signed, of the unrounded values; no sign where it rounds to nothing."""
    change = value - first
    if not math.isfinite(change):
        return "-"
    return f"{change:+.1f}" if f"{abs(change):.1f}" != "0.0" else "0.0"


def _minus(text):
    return text.replace("-", "\u2212") if len(text) > 1 else "\u2013"


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def _text(value):
    return html.escape(str(value))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ddd; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #eee; }}
th[scope=row] {{ text-align: left; font-weight: normal; }}
thead th {{ border-bottom: 2px solid #999; }}
.wide {{ overflow-x: auto; }}
.up {{ color: #06694a; }} .down {{ color: #a8330b; }} .same {{ color: #666; }}
.side {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
.side figure {{ flex: 1 1 420px; }}
figure {{ margin: .8rem 0; }}
figcaption {{ color: #666; font-size: .85rem; }}
img {{ max-width: 100%; height: auto; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }}
dt {{ color: #666; }} dd {{ margin: 0; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
