"""`iou_balanced.losses` needs torch only, and `import iou_balanced` needs nothing."""

import subprocess
import sys

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def run(code, *blocked):
    code = BLOCK.format(blocked=blocked) + code
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_losses_need_torch_only():
    code = """
import torch
from iou_balanced import losses
labels, pos_iou = torch.tensor([0, 2, -1]), torch.tensor([0.5])
print(losses.IoUBalancedFocalLoss()(torch.zeros(3, 2), labels, pos_iou).item())
print(losses.IoUBalancedSmoothL1Loss(weight="auto")(torch.ones(1, 4), torch.zeros(1, 4), pos_iou))
loaded = {m for m in sys.modules if m.startswith("iou_balanced.") and ".losses" not in m}
assert loaded <= {"iou_balanced.config_files"}, loaded
"""
    blocked = ("detectron2", "fvcore", "omegaconf", "torchvision", "iopath")
    assert "tensor" in run(code, *blocked)


def test_the_package_imports_nothing_heavy():
    code = """
import iou_balanced
assert iou_balanced.__version__ and "balance" in iou_balanced.__all__
print(sorted({m.partition(".")[0] for m in sys.modules} & {"torch", "numpy", "detectron2"}))
try:
    iou_balanced.nonsense
except AttributeError as error:
    print(error)
"""
    out = run(code, "torch", "detectron2", "fvcore", "numpy")
    assert out == "[]\nmodule 'iou_balanced' has no attribute 'nonsense'\n"
