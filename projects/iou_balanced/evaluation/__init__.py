"""Evaluation: COCO and VOC metrics, and the numbers of Figure 3.

The names are loaded when they are first used: the numbers need no Detectron2. Runs are compared by
`iou_balanced.analysis`.
"""

import importlib

_MODULES = {
    "COCOBoxEvaluator": "coco",
    "load_ground_truth": "coco_ground_truth",
    "write_metrics_csv": "result_files",
    "write_result_file": "result_files",
    "MAIN_METRICS": "metrics",
    "coco_metrics": "metrics",
    "find_scorer": "metrics",
    "score_nothing": "metrics",
    "IOU_EDGES": "iou_balanced.analysis.localization",
    "IOU_THRESHOLDS": "iou_balanced.analysis.localization",
    "MatchedDetections": "iou_balanced.analysis.localization",
    "ScoreByIoU": "iou_balanced.analysis.localization",
    "fraction_above_iou": "iou_balanced.analysis.localization",
    "match_detections": "iou_balanced.analysis.localization",
    "mean_score_by_iou": "iou_balanced.analysis.localization",
    "rank_correlation": "iou_balanced.analysis.localization",
    "ClassGroups": "class_groups",
    "VOCDetectionEvaluator": "voc",
    "voc_average_precision": "voc_metrics",
    "summarize_voc_ap": "voc_metrics",
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    module = importlib.import_module(module if "." in module else f"{__name__}.{module}")
    value = getattr(module, name)
    globals()[name] = value
    return value
