"""Charts by matplotlib: as SVG whose colors follow the page's, and as PNG files on white.

matplotlib is loaded when a chart is drawn; its global state (pyplot) is not touched.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["INK", "MARKERS", "MUTED", "TRUTH_COLOR", "Chart", "new_figure", "plain", "run_color"]

# Okabe and Ito's colors, which colour-blind people tell apart. The ground truth has its own.
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d1f")
TRUTH_COLOR = "#f0e442"
INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d8dee4", "#ffffff"
MARKERS = "osD^vP"

# What the style sheet has other values of in the dark.
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
} | {color: f"var(--run{i})" for i, color in enumerate(RUN_COLORS)}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "iou_balanced",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    name: str
    """Of the PNG file, without its ending."""
    alt: str
    """What it shows, for those who do not see it."""
    svg: str
    """To stand in HTML."""
    to_png: Callable[[], bytes]
    """Draws the PNG file."""


def run_color(index: int) -> str:
    """Of the run of this number."""
    return RUN_COLORS[index % len(RUN_COLORS)]


def new_figure(width: float, height: float):
    """A matplotlib Figure of this size in inches.

    Raises:
        ImportError: matplotlib is missing; names the extra that brings it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The page needs matplotlib: pip install 'iou_balanced[analysis]', or matplotlib alone"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def draw(name: str, alt: str, paint, *, width: float = 4.8, height: float = 3.4) -> Chart:
    """Call `paint` with axes, and keep what it draws.

    Args:
        name: of the PNG file, without its suffix.
        alt: what is seen, in words.
        paint: gets the axes.
        width: inches; 4.8 fits a telephone's screen without shrinking the letters.
        height: inches.
    """
    new_figure(1, 1)  # says what is missing, before matplotlib's name is used below
    from matplotlib import rc_context

    def save(**options) -> bytes:
        with rc_context(_STYLE):
            figure = new_figure(width, height)
            axes = figure.add_subplot()
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            paint(axes)
            file = io.BytesIO()
            figure.savefig(file, **options)
        return file.getvalue()

    svg = save(format="svg", transparent=True, metadata={"Date": None}).decode("utf-8")
    return Chart(name, alt, _for_html(svg, name), partial(save, format="png", dpi=120))


def plain(text) -> str:
    """matplotlib reads what stands between two $ as a formula."""
    return str(text).replace("$", r"\$")


def _for_html(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # Several charts stand in one page: an id that is used gets the chart's name, others go.
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], name, used), svg)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1]) * 4 / 3  # points to CSS pixels
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"\n\s*", "\n", svg)
    return svg.replace("<svg", f'<svg aria-hidden="true" style="width:{width:.0f}px"', 1)


def _for_page(tag: str, name: str, used: set[str]) -> str:
    """A tag with the page's colors and font, short numbers, and ids that no other chart has."""
    tag = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", tag)
    tag = re.sub(r'(id="|url\(#|href="#)(?=[^)"]+)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]*; ", "", tag)
    tag = re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*", _font, tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(f": {color}", f": {variable}")
    return tag


def _font(match: re.Match) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}"
