"""The image that changed most, one panel a run, as a PNG file for a text."""

import io
from collections.abc import Mapping

from iou_balanced.analysis.data import Analysis
from iou_balanced.formats.image_files import ImageError

from .ap_charts import short
from .charts import TRUTH_COLOR, new_figure, plain
from .gallery import choose_images, default_score
from .pictures import ImageFinder, Picture, read_picture

__all__ = ["draw_most_changed", "draw_panels"]

_COLORS = {"true": "#00a878", "false": "#ff5a36", "ignored": "#b7bec6"}


def draw_most_changed(analysis: Analysis, finder: ImageFinder) -> bytes:
    """A PNG file of the first image that can be drawn.

    Raises:
        ValueError: there is none.
    """
    details = {x["image_id"]: x for x in analysis.changes["images"]}
    for image_id in choose_images(analysis, len(details)):
        detail = details[image_id]
        path = finder.find(detail["file_name"])
        if path is None:
            continue
        try:
            picture = read_picture(path, (detail["width"] or 0, detail["height"] or 0))
        except ImageError:
            continue
        return draw_panels(detail, picture, default_score([detail]))
    raise ValueError("no image can be drawn")


def draw_panels(detail: Mapping, picture: Picture, score: float) -> bytes:
    """A PNG file of an image, one panel a run: objects, and detections with score and IoU.

    Args:
        detail: of the image, see `iou_balanced.analysis.changes.image_details`.
        picture: its pixels.
        score: the least of a detection that is drawn.
    """
    runs = list(detail["runs"])
    width = min(4.6, 13.8 / len(runs))
    height = min(max(width * picture.height / picture.width, 1.0), 6.0)
    figure = new_figure(width * len(runs), height + 0.25)
    for index, run in enumerate(runs, start=1):
        axes = figure.add_subplot(1, len(runs), index)
        is_small = max(picture.image.size) < 300
        axes.imshow(
            picture.image,
            extent=(0, picture.width, picture.height, 0),
            interpolation="nearest" if is_small else "antialiased",
        )
        axes.set_axis_off()
        axes.set_title(plain(short(run)), fontsize=9)
        for item in detail["objects"]:
            style = "--" if item["crowd"] or item["ignored"] else "-"
            _box(axes, item["bbox"], TRUTH_COLOR, linewidth=1.0, linestyle=style)
        # The best box is drawn last, so that no weaker one covers its label.
        for box in sorted(detail["runs"][run], key=lambda box: box["score"]):
            if box["score"] >= score:
                _labelled_box(axes, box, picture)
        # Boxes may reach over the edge; the image decides what is seen.
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.height, 0)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", pad_inches=0.05)
    return file.getvalue()


def _labelled_box(axes, box: Mapping, picture: Picture) -> None:
    color = _COLORS[box["status"]]
    _box(
        axes, box["bbox"], color, linewidth=1.6, linestyle="-" if box["status"] == "true" else "--"
    )
    x, y, _, h = box["bbox"]
    # Labels stand above their box, and below it at the upper edge of the image.
    above = y > 0.08 * picture.height
    axes.text(
        min(max(x, 0), 0.9 * picture.width),
        y if above else min(y + h, picture.height),
        f"{plain(box['class'])} {box['score']:.2f} / {box['iou']:.2f}",
        fontsize=6.5,
        color="black",
        va="bottom" if above else "top",
        clip_on=True,
        bbox={"facecolor": color, "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
    )


def _box(axes, bbox, color, **style) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    x, y, w, h = bbox
    # A dark rim, for images of the line's own color.
    rim = [withStroke(linewidth=style["linewidth"] + 1.2, foreground="#00000099")]
    style = {**style, "fill": False, "edgecolor": color, "path_effects": rim}
    axes.add_patch(Rectangle((x, y), w, h, **style))
