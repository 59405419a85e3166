"""What a run's record says of its circumstances: versions, commit and hardware."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import iou_balanced

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "faster-coco-eval", "timm", "omegaconf")


def versions() -> dict[str, str | None]:
    """Of Python, this package and those it works with; None where one is missing."""
    found = {"python": platform.python_version(), "iou_balanced": iou_balanced.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    try:
        import detectron2

        found["detectron2"] = detectron2.__version__  # its distribution has several names
    except ImportError:
        found["detectron2"] = None
    return found


def git_commit(root: Path) -> dict | None:
    """{"commit": 40 digits, "modified": whether tracked files differ}; None without a clone."""
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "modified": bool(changes)}


def hardware(num_gpus: int) -> dict:
    """The processor, its cores that this process may use, and the GPUs' names."""
    gpus = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or ""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return {
        "cpu": _cpu_name(),
        "cores": len(usable),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": gpus.splitlines(),
        "num_gpus": num_gpus,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _output(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
