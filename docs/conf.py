"""Sphinx: the site of docs/, built by `make docs` with warnings as errors."""

import re

import iou_balanced
import iou_balanced.evaluation
import iou_balanced.reproduction

project = "iou_balanced"
author = "The iou_balanced contributors"
copyright = author
version = release = iou_balanced.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
html_theme = "furo"
html_title = f"iou_balanced {version}"
exclude_patterns = ["_build"]

# Equations as GitHub reads them too, and anchors for links to headings.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Docstrings write code between single backticks.
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
# Detectron2's docstrings are written for its own site.
autodoc_inherit_docstrings = False
napoleon_use_rtype = False

# What __init__.py loads when it is first used, autodoc does not see before.
for _package in (iou_balanced.evaluation, iou_balanced.reproduction):
    for _name in _package.__all__:
        getattr(_package, _name)

nitpicky = True
# Types of other projects, whose sites are not asked.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|detectron2|omegaconf|numpy|PIL|fvcore|pycocotools)\b.*"),
    (r"py:.*", r"(argparse|collections|logging|os|pathlib)\b.*"),
    # Types that are in no `__all__`, and names without a module in annotations and docstrings.
    (r"py:.*", r"(.*\.)?(AffineCropTransform|CenterNetPredictions|CenterTargets)"),
    (r"py:.*", r"(.*\.)?(CocoGroundTruth|Detections|GroundTruth|Schedule)"),
    (r"py:.*", r"(Boxes|CfgNode|H|Tensor|W)"),
]


def escape_docstring(app, what, name, obj, options, lines):
    """|d| and iou^lam * x are plain text, and not reStructuredText, but for code in backticks."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)


_ATTRIBUTES = {}


def keep_attribute(app, what, name, obj, options, lines):
    """Napoleon takes "(K,): the weights" for a type; see `restore_attribute`."""
    if what in ("attribute", "property"):
        _ATTRIBUTES[name] = list(lines)


def restore_attribute(app, what, name, obj, options, lines):
    lines[:] = _ATTRIBUTES.pop(name, lines)


def setup(app):
    for priority, function in (
        (400, escape_docstring),
        (450, keep_attribute),
        (600, restore_attribute),  # Napoleon is at 500
    ):
        app.connect("autodoc-process-docstring", function, priority=priority)
