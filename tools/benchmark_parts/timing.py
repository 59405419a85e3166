"""How everything is timed: alternating, after a warm-up, as median and spread; and records."""

import datetime
import json
import math
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
# Of columns by name, in tables; of all others {:.2f}.
FORMATS = {"ms": "{:.4g}", "CPU ms": "{:.4g}", "network, ms": "{:.4g}", "of fvcore": "{:.3f}"}
FORMATS |= {"peak MiB": "{:.0f}", "seconds": "{:.1f}", "largest difference": "{:.0e}"}
PACKAGES = ("torch", "torchvision", "fvcore", "triton", "pycocotools", "faster-coco-eval")


class Timing(NamedTuple):
    """Of one function, in milliseconds."""

    median: float
    spread: float
    """Half of the distance between the quartiles, as a share of the median."""
    cpu: float
    """Median of the processor time of all threads, which a busy machine leaves alone."""
    calls: tuple[float, ...] = ()
    """Of each call, in their order: processor time on a CPU, else wall time."""

    def cost(self, device: str) -> float:
        """What ratios are of: processor time on a CPU, wall time on a GPU.

        Args:
            device: "cpu" or "cuda".
        """
        return self.median if device == "cuda" else self.cpu

    def ratio(self, base: "Timing") -> float:
        """The median ratio of calls of the same round.

        Args:
            base: what is divided by.
        """
        return statistics.median(self._ratios(base))

    def ratio_interval(self, base: "Timing") -> list[float]:
        """At least 95% for `ratio`, by the sign test; empty of too few calls for that.

        Args:
            base: what is divided by.
        """
        ratios = self._ratios(base)
        chances = [math.comb(len(ratios), k) / 2 ** len(ratios) for k in range(len(ratios))]
        left_out = sum(sum(chances[: k + 1]) <= 0.025 for k in range(len(ratios) // 2))
        return [ratios[left_out - 1], ratios[-left_out]] if left_out else []

    def _ratios(self, base: "Timing") -> list[float]:
        return sorted(a / b for a, b in zip(self.calls, base.calls, strict=True))


def alternate(functions: dict[str, Callable], repeats: int, device: str, warm_up: int = 3) -> dict:
    """Name -> `Timing`: one call of each in turn, so that a busy machine slows all alike."""
    wall, cpu = ({name: [] for name in functions} for _ in range(2))
    for repeat in range(repeats + warm_up):
        for name, function in functions.items():
            _wait(device)
            start, cpu_start = time.perf_counter(), time.process_time()
            function()
            _wait(device)
            if repeat >= warm_up:
                wall[name].append((time.perf_counter() - start) * 1e3)
                cpu[name].append((time.process_time() - cpu_start) * 1e3)
    return {
        name: Timing(
            statistics.median(x),
            _spread(x),
            statistics.median(cpu[name]),
            tuple(x if device == "cuda" else cpu[name]),
        )
        for name, x in wall.items()
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def peak_memory(function: Callable, device: str) -> int:
    """Bytes that a call takes at its peak beyond what there was before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost against log size: 1 where the cost is in proportion."""
    x, y = [math.log(s) for s in sizes], [math.log(c) for c in costs]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def hardware(device: str) -> str:
    """The processor, without the name of the machine."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"CPU, {model}, {torch.get_num_threads()} threads"


def record(name: str, columns: list[str], rows: list[list], *, device: str, settings: str) -> dict:
    """What `tools/list_results.py` makes a table of."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7"]
    commit = ""
    if shutil.which("git"):
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return {
        "name": name,
        "reported_in": commit or "no clone",
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(device),
        "versions": versions,
        "settings": settings,
        "columns": columns,
        "formats": {name: FORMATS.get(name, "{:.2f}") for name in columns[1:]},
        "blank_repeats": columns[0],
        "rows": rows,
    }


def write(made: dict, path: Path) -> None:
    """A record with a line a row."""
    rows = ",\n    ".join(json.dumps(row) for row in made["rows"])
    text = json.dumps({**made, "rows": "ROWS"}, indent=2)
    path.write_text(text.replace('"ROWS"', f"[\n    {rows}\n  ]") + "\n", "utf-8")
