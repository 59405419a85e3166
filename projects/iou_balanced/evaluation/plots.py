"""The pictures of the comparison report, drawn with matplotlib as PNG.

matplotlib is loaded when a picture is drawn; its global state (pyplot) is not touched.
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from iou_balanced.analysis.localization import (
    IOU_EDGES,
    IOU_THRESHOLDS,
    MatchedDetections,
    fraction_above_iou,
    mean_score_by_iou,
)

# Okabe and Ito's colours, which colour-blind people tell apart. The ground truth has its own.
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000")
TRUTH_COLOR = "#f0e442"
_MARKERS = "osD^vP"


def new_figure(width: float, height: float):
    """A matplotlib Figure of this size in inches.

    Raises:
        ImportError: matplotlib is missing; names the extra that brings it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The report needs matplotlib: pip install 'iou_balanced[demo]', or matplotlib alone"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    # Images keep their aspect, which leaves empty margins in the figure.
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.05)
    return file.getvalue()


def plot_score_by_iou(matched: Mapping[str, MatchedDetections]) -> bytes:
    """Figure 3a of arXiv:1908.05641: mean classification score in each IoU range, one line a run.

    Args:
        matched: run name -> scores and IoUs.

    Returns:
        A PNG file. A range without detections leaves a gap in its line.
    """
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    ranges = [f"{low:.2f}\u2013{high:.2f}" for low, high in itertools.pairwise(IOU_EDGES)]
    for index, (name, pairs) in enumerate(matched.items()):
        mean = mean_score_by_iou(*pairs).mean_score
        axes.plot(range(len(mean)), 100 * mean, label=name, **_line(index))
    axes.set_xticks(range(len(ranges)), ranges, rotation=45, ha="right")
    axes.set_xlabel("IoU of the detection with its ground truth")
    axes.set_ylabel("Mean classification score [%]")
    axes.set_title("Score by IoU (Figure 3a)")
    _finish(axes)
    return to_png(figure)


def plot_fraction_above_iou(matched: Mapping[str, MatchedDetections]) -> bytes:
    """Figure 3b of arXiv:1908.05641: percentage of detections above each IoU, one line a run."""
    figure = new_figure(6.2, 4.2)
    axes = figure.add_subplot()
    for index, (name, pairs) in enumerate(matched.items()):
        fraction = fraction_above_iou(pairs.ious)
        axes.plot(IOU_THRESHOLDS, 100 * fraction, label=name, **_line(index))
    axes.set_xticks(IOU_THRESHOLDS)
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel("Detections with a higher IoU [%]")
    axes.set_title("Localization (Figure 3b)")
    _finish(axes)
    return to_png(figure)


def draw_boxes(
    image: np.ndarray,
    truth: Iterable[Mapping],
    panels: Sequence[tuple[str, Sequence[Mapping]]],
    class_names: Mapping[int, str],
) -> bytes:
    """One image several times side by side: the ground truth thin in each, and a run's boxes.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth: COCO annotations (bbox as XYWH in pixels, iscrowd); crowds are dashed.
        panels: (run name, its detections in COCO's format) for each panel.
        class_names: category id -> name.

    Returns:
        A PNG file.
    """
    truth = list(truth)
    height, width = image.shape[:2]
    panel_width = min(4.6, 13.8 / len(panels))
    panel_height = min(max(panel_width * height / width, 1.0), 6.0)
    figure = new_figure(panel_width * len(panels), panel_height + 0.25)
    for index, (name, detections) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        axes.imshow(image, interpolation="nearest" if max(height, width) < 300 else "antialiased")
        axes.set_axis_off()
        axes.set_title(_plain(name), fontsize=9)
        for ann in truth:
            style = "--" if ann.get("iscrowd", 0) else "-"
            _box(axes, ann["bbox"], TRUTH_COLOR, linewidth=1.0, linestyle=style)
        # The best box is drawn last, so that no weaker one covers its label.
        for found in sorted(detections, key=lambda d: d["score"]):
            color = RUN_COLORS[index % len(RUN_COLORS)]
            _box(axes, found["bbox"], color, linewidth=1.8)
            x, y, _, h = found["bbox"]
            # Labels stand above their box, and below it at the upper edge of the image.
            above = y > 0.08 * height
            label = class_names.get(found["category_id"], found["category_id"])
            axes.text(
                min(max(x, 0), 0.9 * width) - 0.5,
                (y if above else min(y + h, height)) - 0.5,
                f"{_plain(label)} {found['score']:.2f}",
                fontsize=7,
                color="white",
                va="bottom" if above else "top",
                clip_on=True,
                bbox={"facecolor": color, "edgecolor": "none", "alpha": 0.85, "pad": 1},
            )
        # Boxes may reach over the edge; the image decides what is seen.
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
    return to_png(figure)


def _box(axes, bbox, color, **style):
    from matplotlib.patches import Rectangle

    # Pixel centres have whole numbers in imshow, corners of pixels have them in COCO's boxes.
    x, y, w, h = bbox
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=color, **style))


def _line(index):
    return {
        "color": RUN_COLORS[index % len(RUN_COLORS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": 5,
        "linewidth": 1.8,
    }


def _finish(axes):
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False).get_texts():
        text.set_text(_plain(text.get_text()))


def _plain(text):
    """matplotlib reads what stands between two $ as a formula."""
    return str(text).replace("$", r"\$")
