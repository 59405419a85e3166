#!/usr/bin/env python
"""Images a second of PyTorch and of ONNX Runtime, on one CPU thread.

Both get the same image, made ready by the config's test mapper, and give detections in the image;
reading files and making images ready is not counted. The runs are interleaved, and what is taken
is the processor's time, so that other programs on the machine matter little. Weights are random;
dense detectors have no score threshold, so that NMS gets as many candidates as it can.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from detectron2.config import LazyConfig, instantiate
from tabulate import tabulate

from iou_balanced.files import write_atomically
from iou_balanced.inference import Predictor
from iou_balanced.inference.onnx.check import made_images
from iou_balanced.inference.onnx.export import write_graph

CONFIGS = Path(__file__).resolve().parents[1] / "configs/COCO"
NAMES = (
    *("retinanet_R_50_FPN_1x", "fcos_R_50_FPN_1x", "foveabox_R_50_FPN_1x", "ssd300"),
    *("centernet_MNV2_140e", "centernet_R_18_140e", "faster_rcnn_R_50_FPN_1x"),
)
COLUMNS = ("config", "input", "PyTorch", "ONNX Runtime", "ratio")


def random_weights(cfg, folder: Path) -> str:
    """A checkpoint; class names are numbers, so that no data set is asked for them."""
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    number = getattr(getattr(model, "roi_heads", model), "num_classes", 80)
    content = {"model": model.state_dict(), "class_names": [str(i) for i in range(number)]}
    torch.save(content, folder / "model.pth")
    return str(folder / "model.pth")


def seconds(predictor: Predictor, prepared: dict) -> float:
    """Processor time of one image."""
    start = time.process_time()
    predictor.run([prepared])
    return time.process_time() - start


def benchmark(name: str, image: np.ndarray, repeats: int) -> list:
    """A row of the table; images a second."""
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    if "roi_heads" not in cfg.model:
        cfg.model.test_score_thresh = 0.0
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(cfg, Path(folder))
        predictor = Predictor(cfg, weights, device="cpu")
        file = Path(folder) / "model.onnx"
        write_graph(predictor, file)
        both = [predictor, Predictor(cfg, file, device="cpu")]
        prepared = predictor.prepare(image)
        times = [[seconds(x, prepared) for x in both] for _ in range(repeats + 1)][1:]
    in_torch, in_onnx = (1 / statistics.median(column) for column in zip(*times, strict=True))
    height, width = prepared["image"].shape[1:]
    return [name, f"{height} x {width}", in_torch, in_onnx, in_onnx / in_torch]


def record(rows: list[list], repeats: int) -> dict:
    """For benchmarks/records; "reported_in" is for whoever commits it."""
    return {
        "name": "inference_cpu",
        "reported_in": "",
        "date": datetime.date.today().isoformat(),
        "hardware": f"CPU, one thread of {os.cpu_count()}",
        "versions": {
            "torch": torch.__version__.partition("+")[0],
            "onnxruntime": onnxruntime.__version__,
        },
        "settings": "tools/benchmark_inference.py: images a second of processor time, one image at "
        f"once, median of {repeats}; random weights, no score threshold but Faster R-CNN's",
        "columns": list(COLUMNS),
        "formats": {"PyTorch": "{:.2f}", "ONNX Runtime": "{:.2f}", "ratio": "{:.2f}"},
        "rows": [[*row[:2], *(round(value, 4) for value in row[2:])] for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=NAMES, help="of configs/COCO")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="JSON", help="the record")
    args = parser.parse_args()
    torch.set_num_threads(1)
    image = np.resize(made_images(1)[0], (*args.size, 3))
    rows = []
    for name in args.configs:
        rows.append(benchmark(name, image, args.repeats))
        print(*rows[-1], flush=True)
    print(tabulate(rows, headers=COLUMNS, floatfmt=".2f"))
    if args.write:
        content = json.dumps(record(rows, args.repeats), indent=2)
        write_atomically(args.write, lambda file: file.write(content + "\n"))


if __name__ == "__main__":
    main()
