"""The page that a training leaves: its curves, and the analysis of its last evaluation."""

import logging
import os
import time
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from iou_balanced.analysis import Analysis, analyze
from iou_balanced.analysis.page import PAGE_FILE, make_page
from iou_balanced.analysis.run_folder import RunFolder, find_inputs, read_run_folder
from iou_balanced.files import write_atomically

from .yaml_evaluation import evaluation_folder

__all__ = ["DRAWS", "LARGEST", "evaluation_times", "write_report", "write_yaml_report"]

logger = logging.getLogger(__name__)

DRAWS = 200
"""Of the images, for the intervals."""
LARGEST = 300_000_000
"""Bytes of a result file, above which the page is left to tools/compare.py: some 2 million boxes,
which take minutes. COCO's val2017 with 100 boxes in each image has a quarter of it."""
_NUM_IMAGES = 12


def write_report(cfg: DictConfig, *, eval_only: bool = False) -> list[str]:
    """Write `report.html` into train.output_dir, by the main process, unless train.report is False.

    Where evaluators write into several folders, each page but the first has its data set's name.
    A training that is done does not fail here: what goes wrong is a warning.

    Args:
        cfg: of the run.
        eval_only: the run was an evaluation.

    Returns:
        the paths of the pages.
    """
    if not cfg.train.report:
        return []
    return _try(lambda: _write_pages_since(cfg, _start(cfg, eval_only)))


def evaluation_times(cfg: CfgNode) -> dict[str, float]:
    """When each folder of a yaml config's evaluators was last written to, of those that were.

    Args:
        cfg: of the run.
    """
    inputs = {folder: find_inputs(folder) for folder in _yaml_folders(cfg)}
    return {folder: path.stat().st_mtime for folder, path in inputs.items() if path}


def write_yaml_report(cfg: CfgNode, before: dict[str, float]) -> list[str]:
    """`write_report` for a yaml config: into OUTPUT_DIR, unless TEST.REPORT is False.

    Args:
        cfg: of the run.
        before: `evaluation_times` when the run started; what has not changed is not reported.

    Returns:
        the paths of the pages.
    """
    if not cfg.TEST.get("REPORT", True):
        return []
    return _try(
        lambda: _write_pages(
            cfg.OUTPUT_DIR,
            _yaml_folders(cfg),
            lambda folder, written: written != before.get(folder),
        )
    )


def _try(write: Callable[[], list[str]]) -> list[str]:
    if not comm.is_main_process():
        return []
    try:
        return write()
    except Exception as e:
        text = " ".join(str(e).split())
        logger.warning("No %s: %s: %s", PAGE_FILE, type(e).__name__, text)
        return []


def _start(cfg: DictConfig, eval_only: bool) -> float:
    """When the run wrote its config, by the clock of the file system."""
    name = "config_eval.yaml" if eval_only else "config.yaml"
    return os.path.getmtime(os.path.join(cfg.train.output_dir, name))


def _write_pages_since(cfg: DictConfig, start: float) -> list[str]:
    folders = _evaluated_folders(cfg)
    return _write_pages(cfg.train.output_dir, folders, lambda _, written: written >= start)


def _write_pages(
    output_dir: str, folders: Sequence[str], is_new: Callable[[str, float], bool]
) -> list[str]:
    paths = []
    for folder in folders:
        inputs = find_inputs(folder)
        if inputs is None or not is_new(folder, inputs.stat().st_mtime):
            continue
        start = time.perf_counter()
        run = read_run_folder(folder)
        if os.path.getsize(run.detections) > LARGEST:
            logger.info(
                "No %s: %s is too large to be analysed within a training; "
                "tools/compare.py %s does it",
                *(PAGE_FILE, run.detections, output_dir),
            )
            continue
        file = PAGE_FILE if not paths else f"report_{run.data_set.replace('/', '_')}.html"
        path = os.path.join(output_dir, file)
        page = _make_page(output_dir, run)
        write_atomically(path, lambda f, html=page: f.write(html))
        logger.info("Wrote %s in %.1f s", path, time.perf_counter() - start)
        paths.append(path)
    return paths


def _evaluated_folders(cfg: DictConfig) -> list[str]:
    nodes = cfg.dataloader.get("evaluator")
    nodes = list(nodes) if OmegaConf.is_list(nodes) else [nodes]
    default = os.path.join(cfg.train.output_dir, "inference")
    return list(dict.fromkeys(node.get("output_dir") or default for node in nodes if node))


def _yaml_folders(cfg: CfgNode) -> list[str]:
    return [evaluation_folder(cfg, name) for name in cfg.DATASETS.TEST]


def _make_page(output_dir: str, run: RunFolder) -> str:
    name = os.path.basename(os.path.normpath(output_dir)) or "run"
    analysis = _analyze(run, name)
    notes = {
        "Folder": os.path.abspath(output_dir),
        "AP": "by COCO's rules, whichever evaluator wrote the metrics.",
    }
    page = make_page(
        analysis,
        images=run.images,
        num_images=_NUM_IMAGES,
        title=f"{name} on {run.data_set}",
        notes=notes,
        trainings={name: os.path.join(output_dir, "metrics.json")},
    )
    return page.html


def _analyze(run: RunFolder, name: str) -> Analysis:
    return analyze(
        run.read_ground_truth(),
        {name: os.fspath(run.detections)},
        train_counts=run.class_counts,
        draws=DRAWS,
        permutations=0,
    )
