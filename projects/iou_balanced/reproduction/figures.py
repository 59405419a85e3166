"""The figures of both papers, drawn as PNG.

Figure 1 of IoU-balanced losses is drawn from runs, its Figures 3 and 4 from COCO result files, and
the others from the losses alone.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from iou_balanced.analysis import analyze, read_detections, read_ground_truth
from iou_balanced.analysis.changes import image_details
from iou_balanced.analysis.matching import match
from iou_balanced.analysis.page import ImageFinder
from iou_balanced.analysis.page.charts import RUN_COLORS, new_figure, run_color
from iou_balanced.analysis.page.localization_charts import localization_charts
from iou_balanced.analysis.page.most_changed import draw_panels
from iou_balanced.analysis.page.pictures import read_picture
from iou_balanced.files import write_atomically

from . import curves
from .parse import RecordError
from .records import find_figure, find_table
from .report import report_rows

MAX_IMAGES = 4
# Of the bootstrap, for the bands of Figure 3.
_DRAWS = 200


def draw_figure(
    name: str,
    output: Path,
    *,
    output_dir: Path = Path("output/reproduction"),
    profile: str = "full",
    ground_truth: Path | None = None,
    results: Mapping[str, Path] | None = None,
    images: Path | None = None,
    image_ids: Sequence[int] = (),
    score: float = 0.2,
) -> list[Path]:
    """Draw the figure "iou/2" and write it.

    Args:
        name: "iou/1" to "iou/4", "bofl/1" or "bofl/2".
        output: a PNG file; figures of several pictures write several, "NAME_a.png" and so on.
        output_dir: of the runs, for Figure 1 of IoU-balanced losses.
        profile: of these runs.
        ground_truth: COCO JSON, for Figures 3 and 4.
        results: {name: COCO results JSON}, for Figures 3 and 4.
        images: folder of the images, for Figure 4.
        image_ids: which images; by default the first four that have a detection to show.
        score: least score of a detection that Figure 4 shows; 0.2 is the paper's.

    Returns:
        The files.

    Raises:
        RecordError: there is no such figure, or what it is drawn from is missing.
        OSError: a file cannot be read.
    """
    figure = find_figure(name)
    output = Path(output)
    if output.suffix.lower() != ".png":
        raise RecordError(f"{output}: figures are PNG files; give a name that ends with .png")
    if figure.drawn_from == "losses":
        pictures = {"": _FROM_LOSSES[name]()}
    elif figure.drawn_from == "runs":
        pictures = {"": _speed_and_accuracy(figure.table, output_dir, profile)}
    elif not ground_truth or not results:
        raise RecordError(f"{name} is drawn from detections: give --ground-truth and --results")
    elif name == "iou/3":
        pictures = _score_and_iou(ground_truth, results)
    else:
        if images is None:
            raise RecordError(f"{name} shows images: give their folder as --images")
        pictures = _detections(ground_truth, results, images, image_ids, score)
    written = []
    for ending, picture in pictures.items():
        path = output.with_stem(output.stem + ending)
        written.append(write_atomically(path, lambda f, x=picture: f.write(x), mode="wb"))
    return written


def _gradient_norms() -> bytes:
    d = torch.linspace(0, 1, 201)
    figure = new_figure(9, 3.8)
    for index, title in enumerate(("d of cx, cy (Eq. 13)", "d of w, h (Eq. 14)"), start=1):
        axes = figure.add_subplot(1, 2, index)
        for color, (label, norms) in zip(
            RUN_COLORS, curves.gradient_norms(d).items(), strict=False
        ):
            axes.plot(d.tolist(), norms[index - 1].tolist(), label=label, color=color)
        axes.set(xlabel=title, ylabel="Gradient norm", ylim=(0, None))
        _finish(axes)
    return _to_png(figure)


def _weighted_learning_rates() -> bytes:
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    colors = ("tab:purple", "tab:red", "tab:green", "gold", "tab:blue")  # the paper's
    for color, (weight, lines) in zip(
        colors, curves.weighted_learning_rates().items(), strict=True
    ):
        axes.plot(lines[0], color=color, label=f"weight {weight}")
        axes.plot(lines[1], color=color, linestyle="--")
    axes.set(xlabel="Epoch", ylabel="Learning rate times weight")
    axes.set_title("With linear scheduling (solid) and without (dashed)", fontsize=10)
    _finish(axes)
    return _to_png(figure)


def _schedules() -> bytes:
    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    styles = {"constant": "-", "deferred": ":", "linear": "--", "ours": "-."}  # the paper's
    for color, (name, line) in zip(RUN_COLORS, curves.schedules().items(), strict=False):
        axes.plot(line, label=name, linestyle=styles.get(name, "-"), color=color)
    axes.set(xlabel="Epoch", ylabel="Weight of a class whose weighting factor is 2")
    _finish(axes)
    return _to_png(figure)


_FROM_LOSSES: dict[str, Callable[[], bytes]] = {
    "iou/2": _gradient_norms,
    "bofl/1": _weighted_learning_rates,
    "bofl/2": _schedules,
}


def speed_and_accuracy(table: str, output_dir: Path, profile: str) -> dict[str, tuple]:
    """{row: (milliseconds an image, AP)} of the rows that have run; a mean over the seeds."""
    points = {}
    for x in report_rows(find_table(table), output_dir=output_dir, profile=profile):
        seconds = [record.get("inference_seconds_per_image") for record in x.records]
        seconds = [value for value in seconds if value is not None]
        if seconds and "AP" in x.ours:
            points[x.row.name] = (1000 * sum(seconds) / len(seconds), x.ours["AP"].value)
    return points


def _speed_and_accuracy(table: str, output_dir: Path, profile: str) -> bytes:
    points = speed_and_accuracy(table, output_dir, profile)
    if not points:
        raise RecordError(
            f"no row of {table} has run in {output_dir} with the profile {profile}: "
            f"run {table} --profile {profile}"
        )
    figure = new_figure(7, 4.4)
    axes = figure.add_subplot()
    for name, (milliseconds, ap) in points.items():
        balanced = name.startswith("IoU-balanced")
        color = run_color(int(balanced))
        axes.plot(milliseconds, ap, marker="o" if balanced else "s", color=color, linestyle="")
        axes.annotate(
            name, (milliseconds, ap), fontsize=7, xytext=(4, 3), textcoords="offset points"
        )
    axes.set(xlabel="Inference [ms an image]", ylabel="AP")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return _to_png(figure)


def _score_and_iou(ground_truth: Path, results: Mapping[str, Path]) -> dict[str, bytes]:
    # The paper does not say which detections its figure is of; here, those that find an object.
    try:
        analysis = analyze(ground_truth, results, draws=_DRAWS, permutations=0)
    except (OSError, ValueError) as e:
        raise RecordError(str(e)) from e
    by_iou, above, *_ = localization_charts(analysis, "matched")
    return {"_a": by_iou.to_png(), "_b": above.to_png()}


def _detections(ground_truth, results, images, image_ids, score) -> dict[str, bytes]:
    try:
        truth = read_ground_truth(ground_truth)
        found = {name: read_detections(path, truth) for name, path in results.items()}
    except (OSError, ValueError) as e:
        raise RecordError(str(e)) from e
    places = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    unknown = [i for i in image_ids if i not in places]
    if unknown:
        raise RecordError(f"{ground_truth} has no image {unknown[0]}")
    shown = {int(i) for x in found.values() for i in x.image[x.score >= score]}
    chosen = [places[i] for i in image_ids] or sorted(shown)[:MAX_IMAGES]
    if not chosen:
        raise RecordError(f"no detection has a score of {score} or more")
    finder = ImageFinder("", images)
    matches = {name: match(truth, detections) for name, detections in found.items()}
    pictures = {}
    for detail in image_details(truth, matches, chosen):
        path = finder.find(detail["file_name"])
        if path is None:
            raise RecordError(f"{images} has no {detail['file_name']}")
        picture = read_picture(path, (detail["width"], detail["height"]))
        pictures[f"_{detail['image_id']}"] = draw_panels(detail, picture, score)
    return pictures


def _to_png(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _finish(axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
