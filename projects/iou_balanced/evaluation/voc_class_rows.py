"""VOC's AP of each class at each IoU threshold, as the rows of a table. Letters: T thresholds, K
classes.
"""

import csv
from collections.abc import Sequence
from typing import IO

import numpy as np

from .voc_metrics import VOC_IOU_THRESHOLDS


def class_rows(ap: dict[str, np.ndarray], class_names: Sequence[str]) -> list[tuple]:
    """A header, and a row for each metric and class.

    Args:
        ap: metric -> (T, K) in 0..100.
        class_names: K names.
    """
    thresholds = [f"AP{round(100 * t)}" for t in VOC_IOU_THRESHOLDS]
    rows = [("metric", "class", "AP", *thresholds)]
    for metric, values in ap.items():  # (T, K)
        for name, column in zip(class_names, values.T.tolist(), strict=True):
            rows.append((metric, name, float(np.mean(column)), *column))
    return rows


def write_class_rows(file: IO[str], ap: dict[str, np.ndarray], class_names: Sequence[str]) -> None:
    """Write `class_rows` as CSV; values keep full precision.

    Args:
        file: opened for text.
        ap: metric -> (T, K) in 0..100.
        class_names: K names.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows(
        [x if isinstance(x, str) else repr(x) for x in row] for row in class_rows(ap, class_names)
    )
