"""Charts of scores against IoUs: Figures 3a and 3b of arXiv 1908.05641, and calibration."""

import itertools

from iou_balanced.analysis.data import Analysis

from .ap_charts import band, begin_at_zero, columns, finish, short
from .charts import MARKERS, MUTED, Chart, draw, plain, run_color
from .numbers import is_defined, number

__all__ = ["localization_charts"]


def localization_charts(analysis: Analysis, population: str) -> list[Chart]:
    """Mean score by IoU (3a), share above each IoU (3b) and calibration, of one population."""
    return [
        _score_by_iou(analysis, population),
        _share_above(analysis, population),
        _calibration(analysis, population),
    ]


def _score_by_iou(analysis: Analysis, population: str) -> Chart:
    edges = analysis.localization["iou_edges"]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]

    def paint(axes):
        for index, (name, table) in enumerate(_tables(analysis, population)):
            band(axes, middles, *columns(table["mean_score_by_iou"]), index, name, most=1)
        axes.set_xlabel("IoU of the detection with its object")
        axes.set_ylabel("Mean score")
        axes.set_title("Score by IoU (Fig. 3a)")
        finish(axes)

    text = _ends(analysis, population, "mean_score_by_iou")
    return draw(
        f"score_by_iou_{population}",
        f"Mean score in each range of IoU, {population} detections. {text}",
        paint,
    )


def _share_above(analysis: Analysis, population: str) -> Chart:
    thresholds = analysis.localization["iou_thresholds"]

    def paint(axes):
        for index, (name, table) in enumerate(_tables(analysis, population)):
            values = [100 * x for x in columns(table["share_above"])]
            band(axes, thresholds, *values, index, name)
        axes.set_xlabel("IoU")
        axes.set_ylabel("Detections of a higher IoU [%]")
        axes.set_title("Localization (Fig. 3b)")
        begin_at_zero(axes)
        finish(axes)

    text = _ends(analysis, population, "share_above")
    return draw(
        f"share_above_iou_{population}",
        f"Share of the {population} detections above each IoU. {text}",
        paint,
    )


def _calibration(analysis: Analysis, population: str) -> Chart:
    def paint(axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="score = IoU")
        for index, (name, table) in enumerate(_tables(analysis, population)):
            bins = [x for x in table["calibration"] if x["count"]]
            axes.plot(
                [x["mean_score"] for x in bins],
                [x["mean_iou"] for x in bins],
                label=plain(short(name)),
                color=run_color(index),
                marker=MARKERS[index % len(MARKERS)],
                markersize=5,
                linewidth=1.8,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("Mean score of a tenth of the scale")
        axes.set_ylabel("Mean IoU")
        axes.set_title("Calibration of the score against the IoU")
        finish(axes)

    errors = "; ".join(
        f"{name} {number(table['calibration_error']['value'], 3)}"
        for name, table in _tables(analysis, population)
    )
    return draw(
        f"calibration_{population}",
        f"Mean IoU by score, {population} detections. Calibration error: {errors}.",
        paint,
    )


def _tables(analysis: Analysis, population: str):
    return [(name, kinds[population]) for name, kinds in analysis.localization["runs"].items()]


def _ends(analysis: Analysis, population: str, key: str) -> str:
    parts = []
    for name, table in _tables(analysis, population):
        values = [x["value"] for x in table[key] if is_defined(x["value"])]
        if values:
            parts.append(f"{name}: {number(values[0], 2)} to {number(values[-1], 2)}")
    return f"{'; '.join(parts)}." if parts else "There is none."
