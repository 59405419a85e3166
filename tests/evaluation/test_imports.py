import subprocess
import sys

BLOCK = """
import sys
for name in ("matplotlib", "iou_balanced.modeling", "iou_balanced.engine", *{blocked!r}):
    sys.modules[name] = None
import iou_balanced.evaluation as evaluation
names = {names!r} or evaluation.__all__
for name in names:
    getattr(evaluation, name)
from iou_balanced.evaluation import coco, metrics  # noqa: F401
"""


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_needs_neither_matplotlib_nor_the_detectors():
    run(BLOCK.format(blocked=(), names=()))


def test_names_are_not_hidden_by_modules():
    # Importing a submodule binds its name in the package.
    import iou_balanced.evaluation as evaluation
    from iou_balanced.evaluation import coco, metrics

    modules = {coco, metrics}
    assert modules.isdisjoint(getattr(evaluation, name) for name in evaluation.__all__)


def test_numbers_need_no_detectron2():
    names = ("match_detections", "coco_metrics")
    code = BLOCK.format(blocked=("detectron2",), names=names)
    run(code.replace("import coco, metrics", "import metrics"))
