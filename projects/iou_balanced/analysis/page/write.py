"""From an analysis to its files."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from iou_balanced.analysis.data import Analysis
from iou_balanced.files import write_atomically

from .ap_charts import (
    ap_by_threshold,
    ap_by_training_instances,
    ap_lost,
    difference_by_threshold,
)
from .charts import Chart
from .gallery import make_gallery
from .localization_charts import localization_charts
from .most_changed import draw_most_changed
from .pictures import ImageFinder
from .tables import (
    class_rows,
    correlation_rows,
    error_rows,
    localization_rows,
    main_rows,
    metric_rows,
)
from .training_log import training_parts

__all__ = ["NUM_IMAGES", "PAGE_FILE", "Page", "make_page"]

PAGE_FILE = "report.html"
FIGURES = "figures"
NUM_IMAGES = 24
_PICTURE_BYTES = 1_150_000  # of the default number of images; with all else below 2 MB
_MAX_CLASSES = 300


@dataclass(frozen=True)
class Page:
    """What is written."""

    html: str
    """The whole file."""
    figures: dict[str, Callable[[], bytes]]
    """File name -> what draws the PNG."""

    def draw_figures(self) -> dict[str, bytes]:
        """File name -> PNG."""
        return {name: to_png() for name, to_png in self.figures.items()}

    def write(
        self, output_dir: str | os.PathLike, figures: Mapping[str, bytes] | None = None
    ) -> list[Path]:
        """Write the PNG files into `figures`, then `report.html`; each as a whole or not at all.

        Args:
            output_dir: is made where it is missing.
            figures: those that were drawn already. Default: they are drawn before the first file
                is written.

        Returns:
            the paths, the page's first.
        """
        folder = Path(output_dir)
        drawn = self.draw_figures() if figures is None else figures
        paths = [
            write_atomically(folder / FIGURES / name, lambda file, x=data: file.write(x), mode="wb")
            for name, data in drawn.items()
        ]
        page = write_atomically(folder / PAGE_FILE, lambda file: file.write(self.html))
        return [page, *paths]


def make_page(
    analysis: Analysis,
    *,
    images: str | os.PathLike | None = None,
    num_images: int = NUM_IMAGES,
    title: str | None = None,
    notes: Mapping[str, object] | None = None,
    trainings: Mapping[str, str | os.PathLike] | None = None,
) -> Page:
    """Draw everything.

    Args:
        analysis: of one run or more.
        images: folder of the image files. Default: beside the ground truth. What is not found is
            said on the page.
        num_images: the most that are drawn.
        title: heading; default: the names of the runs.
        notes: what to know of the runs, shown as it is at the end.
        trainings: run -> its metrics.json, for curves of the training; a file that is missing or
            has none is left out.

    Raises:
        ImportError: matplotlib or jinja2 is missing.
        ValueError: `images` is no folder.
    """
    environment = _environment()
    finder = ImageFinder(analysis.settings.get("ground_truth") or "", images)
    share = max(1.0, num_images / NUM_IMAGES)
    gallery = make_gallery(
        analysis, finder, num_images=num_images, num_bytes=share * _PICTURE_BYTES
    )
    charts = {
        "ap_chart": ap_by_threshold(analysis),
        "difference_chart": difference_by_threshold(analysis),
        "error_chart": ap_lost(analysis),
        "group_chart": ap_by_training_instances(analysis),
    }
    populations = [
        {
            "name": kind,
            "text": text,
            "charts": localization_charts(analysis, kind),
            "rows": localization_rows(analysis, kind),
            "correlation_rows": correlation_rows(analysis, kind) if kind == shown else [],
        }
        for shown in [analysis.localization["shown"]]
        for kind, text in analysis.localization["populations"].items()
    ]
    training = training_parts(trainings or {}, list(analysis.runs))
    rows = class_rows(analysis)
    html = environment.get_template("page.html").render(
        **charts,
        **_texts(analysis, title, notes or {}),
        analysis=analysis,
        main_rows=main_rows(analysis),
        metric_rows=metric_rows(analysis),
        class_rows=rows[:_MAX_CLASSES],
        classes_left=len(rows[_MAX_CLASSES:]),
        has_counts=bool(analysis.groups.get("counts")),
        error_rows=error_rows(analysis),
        localization=analysis.localization,
        populations=populations,
        groups=analysis.groups,
        trainings=training,
        gallery=gallery,
        sections=_sections(analysis, training),
    )
    drawn: list[Chart] = [chart for chart in charts.values() if chart is not None]
    drawn += [chart for kind in populations for chart in kind["charts"]]
    drawn += training["charts"] if training else []
    figures = {f"{chart.name}.png": chart.to_png for chart in drawn}
    if gallery["images"]:
        figures["most_changed.png"] = partial(draw_most_changed, analysis, finder)
    return Page(html, figures)


def _environment():
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "The page needs jinja2: pip install 'iou_balanced[analysis]', or jinja2 alone"
        ) from error
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "script": (folder / "script.js").read_text(encoding="utf-8"),
    }
    return environment


def _texts(analysis: Analysis, title: str | None, notes: Mapping[str, object]) -> dict:
    settings = analysis.settings
    runs = list(analysis.runs)
    counted = ((settings["num_images"], "images"), (settings["num_objects"], "objects"))
    counted += ((settings["num_classes"], "classes"),)
    truth = Path(settings.get("ground_truth") or "").name
    about = ", ".join(f"{n:,} {what if n != 1 else _SINGULAR[what]}" for n, what in counted)
    seeds = {name: n for name, n in settings["num_seeds"].items() if n > 1}
    if seeds:
        about += "; seeds: " + ", ".join(f"{name} {n}" for name, n in seeds.items())
    several = len(runs) > 1
    main_caption = "In percent" + (f"; differences to {runs[0]}" if several else "")
    return {
        "title": title or (f"{', '.join(runs[1:])} against {runs[0]}" if several else runs[0]),
        "about": f"{truth}: {about}" if truth else about,
        "verdict": analysis.verdict or ["There is no verdict."],
        "warnings": analysis.warnings,
        "settings": settings,
        "confidence": f"{100 * settings['confidence']:.4g}%",
        "several_seeds": bool(seeds),
        "runs": runs,
        "first": runs[0],
        "others": list(analysis.differences),
        "main_caption": main_caption,
        "notes": {**{str(k): v for k, v in notes.items()}, **_own_notes(analysis)},
    }


_SINGULAR = {"images": "image", "objects": "object", "classes": "class"}


def _own_notes(analysis: Analysis) -> dict[str, str]:
    settings = analysis.settings
    notes = {}
    if settings.get("ground_truth"):
        notes["Ground truth"] = settings["ground_truth"]
    for name, files in settings["files"].items():
        if any(files):
            notes[f"Detections of {name}"] = ", ".join(str(file) for file in files if file)
    notes["Draws"] = f"{settings['draws']} of the images, seed {settings['seed']}"
    if analysis.differences:
        notes["Permutations"] = str(settings["permutations"])
    notes["Versions"] = f"Python {platform.python_version()}, numpy {np.__version__}"
    return notes


def _sections(analysis: Analysis, training: dict | None) -> list[tuple[str, str]]:
    sections = [("training", "training")] if training else []
    sections += [("ap", "AP by threshold and size"), ("classes", "classes")]
    sections += [("localization", "score against localization"), ("errors", "where AP is lost")]
    if analysis.groups:
        sections.append(("groups", "head and tail"))
    return [*sections, ("images", "images")]
