"""Penalty-reduced focal loss as naively as it can be written: the reference of the tests.

Loops over images, classes and cells, one float64 scalar at a time, from Eq. 1 of CornerNet (arXiv
1808.01244), Section 5.7 of Balance-oriented focal loss, and Eq. 3-4 of arXiv 1908.05641. The
lists of terms run over (n, k, y, x), the last fastest.
"""

import itertools

import torch

from .paper import cross_entropy, number, weights_eq4


def elements(heatmap):
    return itertools.product(*(range(size) for size in heatmap.shape))


def eq1(logit, gt, alpha, beta):
    if gt == 1:
        return torch.sigmoid(-logit) ** alpha * cross_entropy(logit, 1)
    return (1 - gt) ** beta * torch.sigmoid(logit) ** alpha * cross_entropy(logit, 0)


def entry(table, n, column):
    """Of a table (columns,) or (N, columns) that may be missing."""
    if table is None:
        return 1.0
    return float(table[column] if table.dim() == 1 else table[n, column])


def element_weight(heatmap, n, k, y, x, tables):
    """Weight of one element from tables named own, other, background and row."""
    num_classes = heatmap.shape[1]
    label, largest = num_classes, 0.0
    for column in range(num_classes):
        if float(heatmap[n, column, y, x]) > largest:
            label, largest = column, float(heatmap[n, column, y, x])
    if label == num_classes:
        kind = "background"
    elif float(heatmap[n, k, y, x]) > 0:
        kind = "own"
    else:
        kind = "other"
    return entry(tables.get(kind), n, k) * entry(tables.get("row"), n, label)


def heatmap_terms(logits, heatmap, *, alpha, beta, tables=None):
    terms = []
    for n, k, y, x in elements(heatmap):
        term = eq1(logits[n, k, y, x], float(heatmap[n, k, y, x]), alpha, beta)
        terms.append(element_weight(heatmap, n, k, y, x, tables or {}) * term)
    return terms


def iou_balanced_heatmap_terms(logits, heatmap, ious, *, eta, **kwargs):
    """Eq. 3 with the weights of Eq. 4 on the class-weighted terms of the centres."""
    terms = heatmap_terms(logits, heatmap, **kwargs)
    centers = [i for i, at in enumerate(elements(heatmap)) if number(heatmap[at]) == 1]
    weights = weights_eq4([terms[i] for i in centers], ious, eta)
    for i, weight in zip(centers, weights, strict=True):
        terms[i] = weight * terms[i]
    return terms


def example_heatmap(dtype=torch.float64):
    """(2, 3, 3, 4) with every kind of cell.

    Five centres, two of them in one cell; classes that overlap, once with equal values; values
    around centres; background.
    """
    heatmap = torch.zeros(2, 3, 3, 4, dtype=dtype)
    heatmap[0, 1, 1, 1] = 1
    heatmap[0, 1, 1, 0] = heatmap[0, 1, 1, 2] = heatmap[0, 1, 2, 1] = 0.6
    heatmap[0, 0, 1, 2] = 0.35
    heatmap[0, 2, 0, 3] = 1
    heatmap[0, 1, 0, 3] = heatmap[0, 2, 1, 3] = 0.8
    heatmap[1, 0, 2, 3] = heatmap[1, 2, 2, 3] = 1
    heatmap[1, 0, 1, 3] = heatmap[1, 2, 1, 3] = 0.45
    heatmap[1, 1, 0, 0] = 1
    heatmap[1, 1, 0, 1] = 0.01
    return heatmap
