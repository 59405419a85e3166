"""The tables of the page as rows of text."""

from collections.abc import Sequence

from iou_balanced.analysis.data import Analysis
from iou_balanced.analysis.metric_names import SIZE_METRICS, THRESHOLD_METRICS, class_metric

from .numbers import direction, interval, is_defined, number, p_value, signed

__all__ = [
    "class_rows",
    "correlation_rows",
    "error_rows",
    "localization_rows",
    "main_rows",
    "metric_rows",
]

_MAIN = ("AP", "AP50", "AP75", "AP90", *SIZE_METRICS, "AP_tail", "AP_head", "LRP")
_ALL = (
    *("AP", *THRESHOLD_METRICS, *SIZE_METRICS, "AP_tail", "AP_head"),
    *("LRP", "LRP_loc", "LRP_FP", "LRP_FN"),
)
_TITLES = {
    "AP": "mean over IoU 0.50 to 0.95",
    "APs": "objects below 32\u00b2 pixels",
    "APm": "objects of 32\u00b2 to 96\u00b2 pixels",
    "APl": "objects above 96\u00b2 pixels",
    "AP_tail": "mean over the classes that are rare in training",
    "AP_head": "mean over the other classes",
    "LRP": "localization recall precision, at the best score of each class; lower is better",
    "LRP_loc": "its part from localization: 1 \u2212 mean IoU of what is found",
    "LRP_FP": "its part from false boxes: 1 \u2212 precision",
    "LRP_FN": "its part from missed objects: 1 \u2212 recall",
}
_LOCALIZATION = {
    "rank_correlation": ("rank correlation", "of score and IoU (Spearman)", False),
    "mean_iou": ("mean IoU", "", False),
    "mean_score": ("mean score", "", None),
    "calibration_error": ("calibration error", "mean of |score \u2212 IoU| over tenths", True),
}
_FOREST_WIDTH = 100


def main_rows(analysis: Analysis) -> list[dict]:
    """What decides, for the first screen."""
    return _rows(analysis, _MAIN)


def metric_rows(analysis: Analysis) -> list[dict]:
    """All thresholds, sizes and groups, and LRP."""
    return _rows(analysis, _ALL)


def _rows(analysis: Analysis, metrics: Sequence[str]) -> list[dict]:
    rows = []
    for metric in metrics:
        values = [table.get(metric) for table in analysis.runs.values()]
        if any(x is None for x in values) or not any(is_defined(x["value"]) for x in values):
            continue
        differences = [table[metric] for table in analysis.differences.values()]
        lower = metric.startswith("LRP")
        rows.append(
            {
                "name": metric,
                "title": _TITLES.get(metric, ""),
                "values": [_value(x) for x in values],
                "differences": [_difference(analysis, x, lower=lower) for x in differences],
            }
        )
    return rows


def class_rows(analysis: Analysis) -> list[dict]:
    """Every class: first what is more than noise, then by size; of a single run by falling AP."""
    scale = _largest(
        table[class_metric(row["name"])]
        for table in analysis.differences.values()
        for row in analysis.classes
    )
    counts = analysis.groups.get("counts", {})
    rows = []
    for k, row in enumerate(analysis.classes):
        metric = class_metric(row["name"])
        values = [table[metric] for table in analysis.runs.values()]
        differences = [table[metric] for table in analysis.differences.values()]
        ranked = differences or values
        rows.append(
            {
                "index": k,
                "name": row["name"],
                "num_objects": row["num_objects"],
                "num_images": row["num_images"],
                "train": counts.get(row["name"], {}).get("instances"),
                "values": [_value(x) for x in values],
                "differences": [
                    _difference(analysis, x, p="p_holm") | {"forest": _forest(x, scale)}
                    for x in differences
                ],
                "size": max(
                    (abs(x["value"]) for x in ranked if is_defined(x["value"])), default=-1
                ),
            }
        )
    return sorted(
        rows, key=lambda x: (not any(d["direction"] for d in x["differences"]), -x["size"])
    )


def error_rows(analysis: Analysis) -> list[dict]:
    """Points of AP50 by kind of error."""
    errors = analysis.errors
    return [
        {
            "name": kind,
            "title": "",
            "values": [
                _value(table[kind]) | {"count": f"{table[kind]['count']:,.0f}"}
                for table in errors["runs"].values()
            ],
            "differences": [
                _difference(analysis, table[kind], lower=True)
                for table in errors["differences"].values()
            ],
        }
        for kind in errors["kinds"]
    ]


def localization_rows(analysis: Analysis, population: str) -> list[dict]:
    """Numbers of one population of detections."""
    runs = [table[population] for table in analysis.localization["runs"].values()]
    differences = [table[population] for table in analysis.localization["differences"].values()]
    rows = [
        {
            "name": "detections",
            "title": "",
            "values": [{"text": f"{x['num_detections']:,.0f}", "interval": ""} for x in runs],
            "differences": [{"text": "", "interval": "", "p": "", "direction": ""}]
            * len(differences),
        }
    ]
    for key, (name, title, lower) in _LOCALIZATION.items():
        rows.append(
            {
                "name": name,
                "title": title,
                "values": [_value(x[key], 3) for x in runs],
                "differences": [
                    _difference(analysis, x[key], 3, lower=bool(lower))
                    | ({"direction": ""} if lower is None else {})
                    for x in differences
                ],
            }
        )
    return rows


def correlation_rows(analysis: Analysis, population: str) -> list[dict]:
    """Rank correlation of each class."""
    key = "rank_correlation_by_class"
    runs = [table[population][key] for table in analysis.localization["runs"].values()]
    differences = [
        table[population][key] for table in analysis.localization["differences"].values()
    ]
    return [
        {
            "name": row["name"],
            "title": "",
            "values": [_value(table[row["name"]], 3) for table in runs],
            "differences": [
                _difference(analysis, table[row["name"]], 3, p="p_holm") for table in differences
            ],
        }
        for row in analysis.classes
        if any(is_defined(table[row["name"]]["value"]) for table in runs)
    ]


def _value(estimate: dict, digits: int = 1) -> dict:
    return {"text": number(estimate["value"], digits), "interval": interval(estimate, digits)}


def _difference(
    analysis: Analysis, estimate: dict, digits: int = 1, *, lower: bool = False, p: str = "p"
) -> dict:
    confidence = analysis.settings["confidence"]
    return {
        "text": signed(estimate["value"], digits),
        "interval": interval(estimate, digits, sign=True),
        "p": p_value(estimate.get(p, estimate.get("p"))),
        "direction": direction(estimate, confidence, lower_is_better=lower),
    }


def _largest(estimates) -> float:
    ends = [
        abs(x[key]) for x in estimates for key in ("value", "low", "high") if is_defined(x[key])
    ]
    # A class of few objects has an interval that would squeeze all others.
    ends.sort()
    return max(1.0, ends[int(0.95 * (len(ends) - 1))]) if ends else 1.0


def _forest(estimate: dict, scale: float) -> dict | None:
    """Places of a dot and its interval on a line from -scale to scale, in percent."""
    if not is_defined(estimate["value"]):
        return None

    def place(value) -> float:
        share = min(max(value / scale, -1.0), 1.0)
        return round(_FOREST_WIDTH * (1 + share) / 2, 1)

    has_interval = is_defined(estimate["low"]) and is_defined(estimate["high"])
    low, high = (estimate["low"], estimate["high"]) if has_interval else [estimate["value"]] * 2
    return {"value": place(estimate["value"]), "low": place(low), "high": place(high)}
