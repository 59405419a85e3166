"""Say what this environment has, and exit 1 where training cannot work.

    python -m iou_balanced.doctor

Nothing but the standard library is imported with this module; each package is tried on its own, so
that a missing or broken one is a line of the report and not the end of it.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

# module -> what it gives
OPTIONAL = {
    "faster_coco_eval": "faster COCO scoring",
    "timm": "backbones, and ImageNet weights for ResNeXt-101 32x4d",
    "sklearn": "the digits data set (scikit-learn)",
    "onnx": "export to ONNX",
    "onnxruntime": "exported detectors",
    "av": "predictions for videos (PyAV)",
    "matplotlib": "charts on the page of an analysis",
    "jinja2": "the page of an analysis",
    "tensorboard": "event files for TensorBoard",
}
INSTALL_TORCH = "install torch and torchvision of one release and one build (as constraints.txt)"
INSTALL_DETECTRON2 = "run python tools/install_detectron2.py, or build Detectron2 from its source"


def one_line(error):
    """The error in one line: an extension that does not load can say a hundred."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def load(name):
    """Import `name`; returns (module, None), or (None, the reason in one line)."""
    try:
        return importlib.import_module(name), None
    except Exception as error:  # a broken extension raises what it likes
        return None, one_line(error)


def version(module):
    """The module's version, or that of its distribution, or a question mark."""
    try:
        return getattr(module, "__version__", None) or importlib.metadata.version(module.__name__)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def devices(torch):
    """Lines about the CUDA GPUs and bfloat16."""
    if not torch.cuda.is_available():
        return ["CPU only"]
    lines = []
    for i in range(torch.cuda.device_count()):
        # Capability 8.0 (Ampere) is the first with bfloat16; torch emulates it below that.
        bf16 = "with" if torch.cuda.get_device_capability(i) >= (8, 0) else "without"
        lines.append(f"cuda:{i} {torch.cuda.get_device_name(i)}, {bf16} bfloat16")
    return lines


def detectron2_flavour():
    """Whether the installed Detectron2 is release v0.6 or the main branch after it.

    Both say version 0.6, so look for a file that only main has.
    """
    found = importlib.util.find_spec("detectron2.tracking") is not None
    return "main branch" if found else "release v0.6"


def compiled_operators():
    """Whether Detectron2's compiled operators are there, in words.

    Importing `_C` proves nothing, because a pure-Python build has a stand-in: touch an operator.
    """
    lost = "rotated boxes and deformable convolution will not work"
    try:
        from detectron2 import _C

        _ = _C.deform_conv_forward
    except AttributeError:
        return f"no, this is a pure-Python build: {lost}"
    except Exception as error:
        return f"no: {lost} ({one_line(error)})"
    return "yes"


def dependency_faults():
    """What breaks a Detectron2 that imports: lines that say what and the cure."""
    faults = []
    _, reason = load("detectron2.model_zoo")
    if reason and "pkg_resources" in reason:
        # Only the main branch still imports it; install_detectron2.py takes it out of v0.6.
        faults.append(
            "detectron2.model_zoo needs pkg_resources, which setuptools 82 no longer has: "
            "pip install 'setuptools<82'"
        )
    elif reason:
        faults.append(f"detectron2.model_zoo does not import ({reason}): {INSTALL_DETECTRON2}")
    omegaconf, reason = load("omegaconf")
    numbers = re.match(r"(\d+)\.(\d+)", version(omegaconf) if omegaconf else "")
    if omegaconf is None or (numbers and tuple(map(int, numbers.groups())) >= (2, 4)):
        found = f"is {version(omegaconf)}" if omegaconf else f"does not import ({reason})"
        faults.append(
            f"omegaconf {found}, and Detectron2's LazyConfig needs one below 2.4: "
            "pip install 'omegaconf>=2.1,<2.4'"
        )
    return faults


def inspect():
    """Look at everything.

    Returns:
        (rows, faults): rows are (what, finding) pairs of strings; a fault is a line that says what
        stops training and what to do about it.
    """
    rows = [("python", f"{platform.python_version()} ({sys.executable})")]
    faults = []
    torch, reason = load("torch")
    rows.append(("torch", version(torch) if torch else f"missing: {reason}"))
    if torch is None:
        faults.append(f"torch does not import: {INSTALL_TORCH}")
    torchvision, reason = load("torchvision") if torch else (None, "needs torch")
    if torchvision:
        # A build for another torch can import and fail only when an operator is used.
        try:
            box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
            torchvision.ops.nms(box, torch.ones(1), 0.5)
        except Exception as error:
            torchvision, reason = None, one_line(error)
    rows.append(("torchvision", version(torchvision) if torchvision else f"unusable: {reason}"))
    if torch and torchvision is None:
        faults.append(f"torchvision does not load with torch {version(torch)}: {INSTALL_TORCH}")

    detectron2, reason = load("detectron2")
    engine, reason = load("detectron2.engine") if detectron2 else (None, reason)
    if engine:
        where = Path(detectron2.__file__).parent
        rows.append(("detectron2", f"{version(detectron2)}, {detectron2_flavour()}, in {where}"))
        rows.append(("compiled operators", compiled_operators()))
        faults += dependency_faults()
    else:
        rows.append(("detectron2", f"unusable: {reason}"))
        # Without torch nothing can be said about Detectron2.
        if torch and torchvision:
            faults.append(f"detectron2 does not import: {INSTALL_DETECTRON2}")
    for name in ("numpy", "pycocotools"):
        module, reason = load(name)
        rows.append((name, version(module) if module else f"missing: {reason}"))
        if module is None:
            faults.append(f"{name} does not import: pip install {name}")
    if torch:
        rows += [("device", line) for line in devices(torch)]
        rows.append(("CPU threads", str(torch.get_num_threads())))
    for name, gives in OPTIONAL.items():
        module, reason = load(name)
        finding = version(module) if module else f"missing ({reason}); it gives {gives}"
        rows.append((f"optional {name}", finding))
    datasets = os.environ.get("DETECTRON2_DATASETS")
    folder = Path(datasets or "datasets").resolve()
    state = "exists" if folder.is_dir() else "does not exist"
    origin = "$DETECTRON2_DATASETS" if datasets else "$DETECTRON2_DATASETS is not set"
    rows.append(("data sets", f"{folder} {state} ({origin})"))
    return rows, faults


def main():
    """Print the report; returns the exit status."""
    rows, faults = inspect()
    width = max(len(what) for what, _ in rows)
    for what, finding in rows:
        print(f"{what:{width}}  {finding}")
    for fault in faults:
        print(f"Training cannot work: {fault}.")
    if not faults:
        print("Training can work here.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
