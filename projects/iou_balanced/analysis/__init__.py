"""What changed between the detections of runs, and whether it is more than noise.

`analyze` reads COCO ground truth (or a folder in VOC format) and result files, and gives AP at all
thresholds, by size and by class, with intervals of every number and of every difference. It needs
numpy, pycocotools and tqdm: neither torch nor Detectron2.
"""

from .data import CSV_FILE, JSON_FILE, Analysis
from .detections import Detections
from .ground_truth import GroundTruth, read_ground_truth
from .pipeline import analyze
from .results import read_detections

__all__ = [
    "CSV_FILE",
    "JSON_FILE",
    "Analysis",
    "Detections",
    "GroundTruth",
    "analyze",
    "read_detections",
    "read_ground_truth",
]
