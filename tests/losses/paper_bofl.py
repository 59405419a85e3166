"""Balance-oriented focal loss and its rivals, as naively as can be: their reference.

Loops over images, rows and classes, one float64 scalar at a time, written from the papers and not
from the package. A weight is a Python float, so no gradient can flow through it. "Eq." and "Sec."
without a source are those of the balance-oriented focal loss paper.

Weights of classes; counts are lists of K numbers:
    expected_volume(beta, count=None)
    effective_number_alphas(class_counts, beta, *, normalize=False)
    inverse_frequency_alphas(class_counts)
    linear_lambda(epoch, total_epochs, deferred_epochs)
    constant_lambda(epoch, deferred_epochs)
    scheduled_alpha(alpha, progress, intensity=1.0)
    scheduled_power(eta, count, progress, hat)
    balance_oriented_table(alphas, image_counts, *, eta, progress, intensity=1.0,
                           whole_batch=False, hat="base")
    tail_ratio(image_counts, threshold), tail_classes(image_counts, ratio)
Weights of elements, lists [n][r][k]:
    class_wise(labels, table), sample_wise(labels, alphas), by_kind(labels, num_classes, ...)
    equalization(labels, tail, *, tail_background=1.0)
Losses, sums over all elements as scalar tensors:
    focal_loss(logits, labels, weights=None, *, focal_alpha=0.25, gamma=2.0)
    bofl(logits, labels, class_counts, image_counts, *, eta, progress, intensity=1.0,
         whole_batch=False, hat="base", focal_alpha=0.25, gamma=2.0)
    class_balanced_focal(logits, labels, alphas, *, progress=1.0, intensity=1.0,
                         is_class_wise=False, focal_alpha=0.25, gamma=2.0)
    equalization_loss(logits, labels, tail, *, tail_background=1.0, focal_alpha=0.25, gamma=2.0)
    quality_focal(logits, labels, ious, weights=None, *, beta=2.0)
    iou_balanced_focal(logits, labels, ious, weights=None, *, iou_eta=1.5, focal_alpha=0.25,
                       gamma=2.0)
    softmax(logits, labels, table=None, *, ious=None, iou_eta=1.5)
    loss_and_grad(loss_fn, logits, *args, **kwargs)

N images, R rows of an image, K classes, P positives. `logits` (N, R, K); for `softmax` one column
more, background. `labels` (N, R): -1 ignored, 0 to K-1 are classes, K is background. `image_counts`
and every `table` (N, K). `ious` (P,), image after image and row after row.
Focal loss keeps its own alpha (arXiv 1708.02002): `focal_alpha` where the target is 1, its
complement where it is 0, and none where it is negative.
"""

import math

import torch

from .paper import cross_entropy, focal, is_positive, number, softmax_cross_entropy, weights_eq4


def expected_volume(beta, count=None):
    """Sum of beta^(j-1) over j = 1..count; without a count its limit N = 1 / (1 - beta), Eq. 4."""
    if count is None:
        return 1 / (1 - beta)
    return math.fsum(beta ** (j - 1) for j in range(1, count + 1))


def effective_number_alphas(class_counts, beta, *, normalize=False):
    """Eq. 2; `normalize` makes them add up to K, as in arXiv 1901.05555."""
    alphas = [(1 - beta) / (1 - beta**count) for count in class_counts]
    if not normalize:
        return alphas
    return [alpha * len(alphas) / sum(alphas) for alpha in alphas]


def inverse_frequency_alphas(class_counts):
    """Eq. 5: n is the number of instances of all classes."""
    return [sum(class_counts) / (len(class_counts) * count) for count in class_counts]


def linear_lambda(epoch, total_epochs, deferred_epochs):
    """The normalized epoch of Eq. 7: 1 in the last of the epochs, which count from 0.

    Updated each iteration (Table 7), all three arguments count iterations.
    """
    assert total_epochs - 1 > deferred_epochs
    if epoch < deferred_epochs:
        return 0.0
    return (epoch - deferred_epochs) / (total_epochs - 1 - deferred_epochs)


def constant_lambda(epoch, deferred_epochs):
    """Table 5, "constant" without and "deferred" with deferred epochs."""
    return 0.0 if epoch < deferred_epochs else 1.0


def scheduled_alpha(alpha, progress, intensity=1.0):
    """Eq. 7; the intensity of Sec. 5.8 scales the distance from 1."""
    return 1 + progress * intensity * (alpha - 1)


def scheduled_power(eta, count, progress, hat):
    """The second factor of Eq. 8, with Eq. 7 applied to eta, or to its whole power."""
    if hat == "base":
        return (1 + progress * (eta - 1)) ** count
    assert hat == "power"
    return 1 + progress * (eta**count - 1)


def balance_oriented_table(
    alphas, image_counts, *, eta, progress, intensity=1.0, whole_batch=False, hat="base"
):
    """Eq. 8, (N, K). `whole_batch` counts in all images together (Sec. 5.6), not in each."""
    table = []
    for n in range(len(image_counts)):
        row = []
        for i, alpha in enumerate(alphas):
            count = int(image_counts[n][i])
            if whole_batch:
                count = sum(int(counts[i]) for counts in image_counts)
            power = scheduled_power(eta, count, progress, hat)
            row.append(scheduled_alpha(alpha, progress, intensity) * power)
        table.append(row)
    return table


def tail_ratio(image_counts, threshold):
    """The tail ratio of arXiv 2003.05176; `threshold` is its lambda times the number of images."""
    return sum(count for count in image_counts if count < threshold) / sum(image_counts)


def tail_classes(image_counts, ratio):
    """T(f_j) for each class, by the largest threshold whose tail ratio is at most `ratio`."""
    thresholds = [*image_counts, math.inf]
    threshold = max(t for t in thresholds if tail_ratio(image_counts, t) <= ratio)
    return [count < threshold for count in image_counts]


def _each_element(labels, num_classes, weight):
    """[n][r][k] of weight(n, label, k); an ignored row has 0, which nothing may use."""

    def row(n, label):
        return [0.0 if label == -1 else float(weight(n, label, k)) for k in range(num_classes)]

    return [[row(n, int(label)) for label in image] for n, image in enumerate(labels)]


def class_wise(labels, table):
    """Eq. 6 and 9: the weight of a class on every element of its column, background included."""
    return _each_element(labels, len(table[0]), lambda n, label, k: table[n][k])


def sample_wise(labels, alphas):
    """Eq. 1: alpha_y on all columns of a row with label y; on background rows 1 (Sec. 5.7)."""
    num_classes = len(alphas)
    return _each_element(
        labels, num_classes, lambda n, label, k: alphas[label] if label < num_classes else 1.0
    )


def by_kind(labels, num_classes, *, own=None, other=None, background=None, row=None):
    """Apart: positives' own columns, their others, background rows; times `row` (N, K + 1)."""

    def weight(n, label, k):
        table = background if label == num_classes else own if label == k else other
        element = 1.0 if table is None else float(table[n][k])
        return element if row is None else element * float(row[n][label])

    return _each_element(labels, num_classes, weight)


def equalization(labels, tail, *, tail_background=1.0):
    """w_j = 1 - E(r) T(f_j) (1 - y_j), arXiv 2003.05176; on tail columns of background rows
    `tail_background`, 0.5 for the variant of Sec. 5.8."""
    num_classes = len(tail)

    def weight(n, label, j):
        is_foreground = 1 if label < num_classes else 0  # E(r)
        in_tail = 1 if tail[j] else 0  # T(f_j)
        target = 1 if label == j else 0  # y_j
        if in_tail and not is_foreground:
            return tail_background
        return 1 - is_foreground * in_tail * (1 - target)

    return _each_element(labels, num_classes, weight)


def _focal_terms(logits, labels, weights, focal_alpha, gamma):
    """Each element's weighted loss by its place (n, r, k); ignored rows have none."""
    terms = {}
    for n in range(logits.shape[0]):
        for r in range(logits.shape[1]):
            label = int(labels[n][r])
            if label == -1:
                continue
            for k in range(logits.shape[2]):
                # Eq. 3, where "y = 1" stands for y = i.
                term = focal(logits[n, r, k], 1 if label == k else 0, focal_alpha, gamma)
                terms[n, r, k] = term if weights is None else float(weights[n][r][k]) * term
    return terms


def _sum(terms, logits):
    """A sum that stays attached to the graph without any term."""
    return sum(terms, logits.sum() * 0.0)


def _positives(labels, num_classes):
    """(n, r, label) in the order of `ious`."""
    return [
        (n, r, int(label))
        for n, image in enumerate(labels)
        for r, label in enumerate(image)
        if is_positive(int(label), num_classes)
    ]


def focal_loss(logits, labels, weights=None, *, focal_alpha=0.25, gamma=2.0):
    return _sum(_focal_terms(logits, labels, weights, focal_alpha, gamma).values(), logits)


def bofl(logits, labels, class_counts, image_counts, *, focal_alpha=0.25, gamma=2.0, **schedule):
    """Eq. 9 with the weights of Eq. 5, 7 and 8; `schedule` is that of `balance_oriented_table`."""
    alphas = inverse_frequency_alphas(class_counts)
    weights = class_wise(labels, balance_oriented_table(alphas, image_counts, **schedule))
    return focal_loss(logits, labels, weights, focal_alpha=focal_alpha, gamma=gamma)


def class_balanced_focal(
    logits, labels, alphas, *, progress=1.0, intensity=1.0, is_class_wise=False, **focal_args
):
    """Eq. 1, or Eq. 6 if class-wise, with the alphas of Eq. 2 or 5, scheduled by Eq. 7."""
    alphas = [scheduled_alpha(alpha, progress, intensity) for alpha in alphas]
    weights = class_wise(labels, [alphas] * len(labels))
    if not is_class_wise:
        weights = sample_wise(labels, alphas)
    return focal_loss(logits, labels, weights, **focal_args)


def equalization_loss(logits, labels, tail, *, tail_background=1.0, **focal_args):
    weights = equalization(labels, tail, tail_background=tail_background)
    return focal_loss(logits, labels, weights, **focal_args)


def quality_focal(logits, labels, ious, weights=None, *, beta=2.0):
    """arXiv 2006.04388, Eq. 2: the target is the IoU in a positive's own column, 0 elsewhere."""
    targets = dict(zip(_positives(labels, logits.shape[2]), map(float, ious), strict=True))
    terms = []
    for n, r, k in _focal_terms(logits, labels, None, -1, 0.0):
        logit, y = logits[n, r, k], targets.get((n, r, k), 0.0)
        entropy = y * cross_entropy(logit, 1) + (1 - y) * cross_entropy(logit, 0)
        term = abs(y - torch.sigmoid(logit)) ** beta * entropy
        terms.append(term if weights is None else float(weights[n][r][k]) * term)
    return _sum(terms, logits)


def _balance(terms, own, ious, iou_eta):
    """Eq. 4 of arXiv 1908.05641 for the positives' `own` terms, replaced in `terms`."""
    ratios = weights_eq4([terms[place] for place in own], [float(iou) for iou in ious], iou_eta)
    for place, ratio in zip(own, ratios, strict=True):
        terms[place] = ratio * terms[place]


def iou_balanced_focal(
    logits, labels, ious, weights=None, *, iou_eta=1.5, focal_alpha=0.25, gamma=2.0
):
    """Eq. 3 of arXiv 1908.05641, its Eq. 4 over terms that have their class weights already."""
    terms = _focal_terms(logits, labels, weights, focal_alpha, gamma)
    _balance(terms, _positives(labels, logits.shape[2]), ious, iou_eta)
    return _sum(terms.values(), logits)


def softmax(logits, labels, table=None, *, ious=None, iou_eta=1.5):
    """Cross entropy with the weight of the sample's label, background 1; `ious` balance it."""
    num_classes = logits.shape[2] - 1
    terms = {}
    for n in range(logits.shape[0]):
        for r in range(logits.shape[1]):
            label = int(labels[n][r])
            if label == -1:
                continue
            has_weight = table is not None and label < num_classes
            weight = float(table[n][label]) if has_weight else 1.0
            terms[n, r] = weight * softmax_cross_entropy(logits[n, r], label)
    if ious is not None:
        own = [(n, r) for n, r, _ in _positives(labels, num_classes)]
        _balance(terms, own, ious, iou_eta)
    return _sum(terms.values(), logits)


def loss_and_grad(loss_fn, logits, *args, **kwargs):
    """Value as a number, and gradient by the logits, in float64."""
    logits = logits.detach().double().requires_grad_()
    loss = loss_fn(logits, *args, **kwargs)
    (grad,) = torch.autograd.grad(loss, logits)
    return number(loss), grad
