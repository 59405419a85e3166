"""Charts of average precision: by IoU threshold, by kind of error, by training instances."""

import numpy as np

from iou_balanced.analysis.data import Analysis
from iou_balanced.analysis.metric_names import IOU_THRESHOLDS, THRESHOLD_METRICS, class_metric

from .charts import MARKERS, MUTED, Chart, draw, plain, run_color
from .numbers import is_defined, number, signed

__all__ = [
    "ap_by_threshold",
    "ap_by_training_instances",
    "ap_lost",
    "band",
    "columns",
    "difference_by_threshold",
    "finish",
    "short",
]


def ap_by_threshold(analysis: Analysis) -> Chart:
    """One line a run, with its intervals."""
    parts = [
        f"{name} from {number(table['AP50']['value'])} at 0.50 to "
        f"{number(table['AP95']['value'])} at 0.95"
        for name, table in analysis.runs.items()
    ]

    def paint(axes):
        for index, (name, table) in enumerate(analysis.runs.items()):
            values = columns([table[metric] for metric in THRESHOLD_METRICS])
            band(axes, IOU_THRESHOLDS, *values, index, name)
        axes.set_xlabel("IoU threshold")
        axes.set_ylabel("AP [%]")
        begin_at_zero(axes)
        finish(axes)

    return draw("ap_by_iou", f"AP by IoU threshold: {'; '.join(parts)}.", paint, width=5.4)


def difference_by_threshold(analysis: Analysis) -> Chart | None:
    """Differences to the first run, with their intervals; None for a single run."""
    if not analysis.differences:
        return None
    parts = [
        f"{name} {signed(table['AP50']['value'])} at 0.50 and {signed(table['AP90']['value'])} at "
        "0.90"
        for name, table in analysis.differences.items()
    ]

    def paint(axes):
        axes.axhline(0, color=MUTED, linewidth=1)
        shift = 0.008
        middle = (len(analysis.differences) - 1) / 2
        for index, (name, table) in enumerate(analysis.differences.items(), start=1):
            value, low, high = columns([table[metric] for metric in THRESHOLD_METRICS])
            axes.errorbar(
                IOU_THRESHOLDS + shift * (index - 1 - middle),
                value,
                np.nan_to_num([value - low, high - value]),
                label=plain(name),
                color=run_color(index),
                marker=MARKERS[index % len(MARKERS)],
                linestyle="none",
                markersize=5,
                elinewidth=1.6,
                capsize=2.5,
            )
        axes.set_xlabel("IoU threshold")
        axes.set_ylabel(plain(f"Points of AP against {short(analysis.first)}"))
        finish(axes)

    text = f"Difference of AP to {analysis.first} by IoU threshold: {'; '.join(parts)}."
    return draw("difference_by_iou", text, paint)


def ap_lost(analysis: Analysis) -> Chart:
    """Points of AP50 that mending each kind of error alone would give."""
    kinds, runs = analysis.errors["kinds"], analysis.errors["runs"]
    parts = [
        f"{name}: " + ", ".join(f"{kind} {number(table[kind]['value'])}" for kind in kinds)
        for name, table in runs.items()
    ]

    def paint(axes):
        thickness = 0.8 / len(runs)
        for index, (name, table) in enumerate(runs.items()):
            places = np.arange(len(kinds)) + (index - (len(runs) - 1) / 2) * thickness
            value, low, high = columns([table[kind] for kind in kinds])
            axes.barh(
                places,
                np.nan_to_num(value),
                0.9 * thickness,
                color=run_color(index),
                label=plain(short(name)),
            )
            axes.errorbar(
                np.nan_to_num(value),
                places,
                xerr=np.nan_to_num([value - low, high - value]),
                linestyle="none",
                color=MUTED,
                elinewidth=1.2,
                capsize=2,
            )
        axes.set_yticks(range(len(kinds)), kinds)
        axes.invert_yaxis()
        begin_at_zero(axes, axis="x")
        axes.set_xlabel("Points of AP50 that mending it alone would give")
        axes.grid(True, axis="x", linewidth=0.8)
        if len(runs) > 1:  # above: bars may be anywhere
            axes.figure.legend(loc="outside upper center", ncols=2)

    height = 1.5 + 0.32 * len(kinds) * max(1, len(runs) * 0.6)
    text = f"Points of AP50 lost by kind of error. {'; '.join(parts)}."
    return draw("ap_lost", text, paint, height=min(height, 6))


def ap_by_training_instances(analysis: Analysis) -> Chart | None:
    """A dot for each class, and an arrow from the first run to each other one.

    None where the classes make no groups.
    """
    if not analysis.groups.get("tail"):
        return None
    names = [row["name"] for row in analysis.classes]
    runs = list(analysis.runs)

    def paint(axes):
        for name in names:
            _paint_class(axes, analysis, name, is_labelled=len(names) <= 20)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(axes.xaxis.get_major_locator().__class__(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.plot([], [], "o", color=run_color(0), label=plain(f"{short(runs[0])}, tail"))
        axes.plot([], [], "s", color=run_color(0), label=plain(f"{short(runs[0])}, head"))
        for index, run in enumerate(runs[1:], start=1):
            axes.plot([], [], color=run_color(index), label=plain(f"to {short(run)}"))
        axes.set_xlabel("Training instances of the class")
        axes.set_ylabel("AP [%]")
        finish(axes)

    text = (
        f"AP of each of {len(names)} classes against its training instances, of {runs[0]}; "
        f"arrows lead to {', '.join(runs[1:]) or 'no other run'}. The numbers are in the table."
    )
    return draw("head_and_tail", text, paint, width=6.4, height=4)


def _paint_class(axes, analysis: Analysis, name: str, *, is_labelled: bool) -> None:
    # A class without an instance in training has no place on a logarithmic axis.
    place = max(analysis.groups["counts"][name]["instances"], 0.5)
    first, *others = (table[class_metric(name)]["value"] for table in analysis.runs.values())
    if not is_defined(first):
        return
    marker = "o" if name in analysis.groups["tail"] else "s"
    axes.plot(place, first, color=run_color(0), marker=marker, markersize=5, linestyle="none")
    for index, value in enumerate(others, start=1):
        if is_defined(value):
            style = {"arrowstyle": "->", "color": run_color(index), "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (place, value), (place, first), arrowprops=style)
            axes.plot(place, value, alpha=0)  # arrows do not widen the axes
    if is_labelled:
        style = {"textcoords": "offset points", "fontsize": 8, "color": MUTED, "va": "center"}
        axes.annotate(plain(short(name, 14)), (place, first), (5, 0), **style)


def band(axes, x, value, low, high, index: int, name: str, *, most: float = 100) -> None:
    """A line with its intervals behind it, as far as they are between 0 and `most`."""
    color = run_color(index)
    low, high = np.clip(low, 0, most), np.clip(high, 0, most)
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(
        x,
        value,
        label=plain(short(name)),
        color=color,
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        linewidth=1.8,
    )


def begin_at_zero(axes, *, axis: str = "y", least: float = 1.0) -> None:
    """From 0 to where the data end, or to `least`: numbers that are all 0 are not magnified.

    Args:
        axes: after all is drawn.
        axis: "x" or "y".
        least: where it ends at the lowest.
    """
    ends = getattr(axes, f"get_{axis}lim")()
    getattr(axes, f"set_{axis}lim")(0, max(*ends, least))


def finish(axes) -> None:
    """Grid, and a legend where there is more than one thing; the axes of no data go to 1."""
    if axes.lines and not any(np.isfinite(np.asarray(x.get_ydata())).any() for x in axes.lines):
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.text(0.5, 0.5, "no detections", ha="center", color=MUTED)
    axes.grid(True, linewidth=0.8)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend()


def columns(estimates) -> list[np.ndarray]:
    """Estimates as (value, low, high); NaN where undefined."""
    return [
        np.array([x[key] if is_defined(x.get(key)) else np.nan for x in estimates], float)
        for key in ("value", "low", "high")
    ]


def short(text, length: int = 28) -> str:
    """Cut where it is too long for a chart."""
    text = str(text)
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
