"""Packaging. Detectron2 and torch are not requirements: pip must not replace a user's own."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "projects" / "iou_balanced" / "__init__.py"

# timm requires torch and torchvision, so it may stand in extras only.
EXTRAS = {
    "analysis": ["pycocotools", "matplotlib", "jinja2", "pillow"],
    "cityscapes": ["cityscapesScripts"],
    "demo": ["scikit-learn", "matplotlib", "jinja2"],
    "fast-eval": ["faster-coco-eval"],
    "timm": ["timm"],
    "docs": ["sphinx", "myst-parser", "furo"],
    "dev": [
        "pytest",
        "pytest-xdist",
        "ruff",
        "cityscapesScripts",
        "faster-coco-eval",
        "timm",
        "scikit-learn",
        "matplotlib",
        "jinja2",
    ],
}

setup(
    name="iou_balanced",
    version=re.search(r'^__version__ = "(.+)"$', INIT.read_text(), re.MULTILINE).group(1),
    description="IoU-balanced losses for object detection, as an extension of Detectron2",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    package_data={"iou_balanced.analysis.page": ["templates/*"]},
    python_requires=">=3.10",
    install_requires=["numpy", "tabulate", "tqdm"],
    extras_require=EXTRAS,
)
