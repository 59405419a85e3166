"""AP of the rare and of the frequent classes, and of each class next to its training counts.

Letters: T IoU thresholds, R recall levels, K classes, A area ranges, M detection limits.
"""

import csv
import itertools
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from iou_balanced.analysis.groups import TAIL_RATIO, tail_of
from iou_balanced.data.class_counts import ClassCounts, format_class_table
from iou_balanced.files import write_atomically


class ClassGroups:
    """The tail and the head of the evaluated classes, by how often they occur in training.

    The tail are the rarest classes, by images: as many as bring their share of the images, summed
    over the classes, nearest to the tail ratio (arXiv 2003.05176), see `tail_of`. All others
    are the head.
    """

    def __init__(
        self,
        class_counts: ClassCounts | str | os.PathLike,
        class_names: Sequence[str],
        *,
        tail_ratio: float = TAIL_RATIO,
    ):
        """
        Args:
            class_counts: of the training set, or the path of the file that `ClassCounts.save`
                wrote.
            class_names: K names, in the order of the evaluation. The counts are found by name.
            tail_ratio: in [0, 1].

        Raises:
            OSError: the file cannot be read.
            ValueError: bad `tail_ratio`; no file of class counts; its classes are not
                `class_names`.
        """
        source = ""
        if not isinstance(class_counts, ClassCounts):
            source = os.fspath(class_counts)
            class_counts = ClassCounts.load(source)
        self.tail_ratio = tail_ratio
        self.counts = class_counts.reordered(class_names, source=source)
        self.is_tail = tail_of(self.counts.images, tail_ratio)

    def add_means(self, metrics: Mapping[str, float]) -> OrderedDict[str, float]:
        """`metrics` with AP_tail and AP_head before the "AP-<class>" that they are the means of.

        A class whose AP is NaN, having no ground truth, is left out of the means; they are NaN
        where no class is left.

        Args:
            metrics: AP by name, with "AP-<class>" of each class.
        """
        ap = np.array([metrics[f"AP-{name}"] for name in self.counts.class_names])
        result = OrderedDict((k, v) for k, v in metrics.items() if not k.startswith("AP-"))
        result["AP_tail"] = _mean(ap[self.is_tail])
        result["AP_head"] = _mean(ap[~self.is_tail])
        result.update(metrics)
        return result

    def format_table(self, columns: Mapping[str, Sequence[float]]) -> str:
        """A table of all classes, the rarest first, under a line that tells the split.

        Args:
            columns: header -> K values, for example of AP, shown to one decimal.
        """
        images = np.array(self.counts.images)
        share = images[self.is_tail].sum() / max(images.sum(), 1)
        heading = (
            f"tail: {self.is_tail.sum()} of {len(images)} classes, "
            f"with {share:.2%} of the images (tail ratio {self.tail_ratio:.2%})"
        )
        headers, rows = self._rows(columns)
        rows.sort(key=lambda row: (row[2], row[1]))  # by images, as the groups are
        headers = ["class", "instances", "images", *headers[3:]]
        return f"{heading}\n{format_class_table(headers, rows, floatfmt='.1f')}"

    def write_csv(self, path: str | os.PathLike, columns: Mapping[str, Sequence[float]]) -> Path:
        """Write class,train_instances,train_images,group and `columns`, in the classes' order.

        Values keep full precision; NaN is written as nan.

        Args:
            path: of the file; it is replaced as a whole.
            columns: header -> (K,) values.
        """
        headers, rows = self._rows(columns)

        def write(file):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(headers)
            writer.writerows([*row[:4], *map(repr, row[4:])] for row in rows)

        return write_atomically(path, write)

    def _rows(self, columns: Mapping[str, Sequence[float]]) -> tuple[list[str], list[list]]:
        values = [[float(value) for value in column] for column in columns.values()]
        counts = self.counts
        groups = ["tail" if rare else "head" for rare in self.is_tail]
        rows = zip(
            counts.class_names, counts.instances, counts.images, groups, *values, strict=True
        )
        headers = ["class", "train_instances", "train_images", "group", *columns]
        return headers, [list(row) for row in rows]


def ap_by_class(coco_eval: COCOeval, *, iou_threshold: float, max_dets: int = 100) -> list[float]:
    """(K,) AP of each class at one IoU threshold, from an evaluation after `accumulate()`.

    Args:
        coco_eval: see `iou_balanced.evaluation.coco_metrics`.
        iou_threshold: the nearest one of the evaluation is taken.
        max_dets: the limit of detections per image, one of `params.maxDets`.

    Returns:
        Values in 0..100, NaN where a class has no ground truth.
    """
    params = coco_eval.params
    precision = np.asarray(coco_eval.eval["precision"])  # (T, R, K, A, M)
    precision = precision[..., params.areaRngLbl.index("all"), list(params.maxDets).index(max_dets)]
    precision = precision[np.abs(np.asarray(params.iouThrs) - iou_threshold).argmin()]  # (R, K)
    # A class is -1 throughout or nowhere: what decides is whether it has ground truth.
    ap = np.where((precision > -1).all(axis=0), 100 * precision.mean(axis=0), np.nan)
    return ap.tolist()


def format_ap_table(class_names: Sequence[str], ap: Sequence[float]) -> str:
    """AP of each class, three classes to a line."""
    cells = list(itertools.chain.from_iterable(zip(class_names, ap, strict=True)))
    columns = min(6, len(cells))
    return tabulate(
        itertools.zip_longest(*[cells[i::columns] for i in range(columns)]),
        headers=["category", "AP"] * (columns // 2),
        tablefmt="pipe",
        floatfmt=".3f",
        numalign="left",
    )


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
