"""arXiv 1908.05641, Eq. 1 to 7, as naively as they can be written: the reference of the tests.

Loops over examples and classes, one float64 scalar at a time, written from the paper and not from
the package. A weight is a Python float here, so no gradient can flow through it: what autograd
gives for these sums is what the paper asks for.

Labels: -1 is ignored, 0 to K-1 are classes, K is background. P: positives, in the order of labels.
"""

import math

import torch


def number(scalar):
    return scalar.detach().item()


def is_positive(label, num_classes):
    return 0 <= label < num_classes


def cross_entropy(logit, target):
    """Eq. 1 for one score p = sigmoid(logit); log p is taken without ever computing p."""
    zero = torch.zeros_like(logit)
    minus_log_p = torch.logaddexp(zero, -logit)
    minus_log_not_p = torch.logaddexp(zero, logit)
    return minus_log_p if target == 1 else minus_log_not_p


def focal(logit, target, alpha, gamma):
    """Focal loss (arXiv 1708.02002) of one score: what RetinaNet has in the place of Eq. 1."""
    p = torch.sigmoid(logit)
    not_p = torch.sigmoid(-logit)
    loss = (not_p if target == 1 else p) ** gamma * cross_entropy(logit, target)
    if alpha < 0:
        return loss
    return (alpha if target == 1 else 1 - alpha) * loss


def focal_terms(logits, labels, *, alpha, gamma, class_weight=None):
    """Rows of scalars; `class_weight` is a table with one row for each row of logits."""
    rows, num_classes = logits.shape
    table = []
    for i in range(rows):
        row = []
        for k in range(num_classes):
            if labels[i] == -1:
                row.append(logits[i, k] * 0.0)
                continue
            term = focal(logits[i, k], 1 if labels[i] == k else 0, alpha, gamma)
            if class_weight is not None:
                term = float(class_weight[i][k]) * term
            row.append(term)
        table.append(row)
    return table


def weights_eq4(terms, ious, eta):
    """w_i of Eq. 4 from the positives' own terms. With every IoU 0 the ratio is 0/0: ones."""
    terms = [number(term) for term in terms]
    powers = [math.pow(iou, eta) for iou in ious]
    below = sum(power * term for power, term in zip(powers, terms, strict=True))
    if below == 0:
        return [1.0] * len(terms)
    return [power * sum(terms) / below for power in powers]


def iou_balanced_focal_terms(logits, labels, ious, *, eta, alpha, gamma, class_weight=None):
    """Eq. 3: w_i on the one score of a positive whose target is 1, everything else as it was."""
    num_classes = logits.shape[1]
    table = focal_terms(logits, labels, alpha=alpha, gamma=gamma, class_weight=class_weight)
    own = [(i, label) for i, label in enumerate(labels) if is_positive(label, num_classes)]
    weights = weights_eq4([table[i][k] for i, k in own], ious, eta)
    for (i, k), weight in zip(own, weights, strict=True):
        table[i][k] = weight * table[i][k]
    return table


def softmax_cross_entropy(row, label):
    exponentials = [torch.exp(logit - number(row.max())) for logit in row]
    return -torch.log(exponentials[label] / sum(exponentials))


def iou_balanced_softmax_terms(logits, labels, ious, *, eta):
    """Eq. 3 and 4 over softmax: one term for each row; the last column is background."""
    num_classes = logits.shape[1] - 1
    terms = []
    for i, label in enumerate(labels):
        terms.append(
            logits[i].sum() * 0.0 if label == -1 else softmax_cross_entropy(logits[i], label)
        )
    own = [i for i, label in enumerate(labels) if is_positive(label, num_classes)]
    weights = weights_eq4([terms[i] for i in own], ious, eta)
    for i, weight in zip(own, weights, strict=True):
        terms[i] = weight * terms[i]
    return terms


def smooth_l1(x, delta):
    """Eq. 2; delta = 0 is its limit, the absolute value."""
    if delta > 0 and abs(number(x)) <= delta:
        return x * x / (2 * delta)
    return abs(x) - delta / 2


def iou_balanced_smooth_l1_terms(deltas, targets, ious, *, lam, weight, beta, normalize=False):
    """Eq. 5 with the weights of Eq. 6, or of Eq. 7 times `weight`. Rows of four scalars."""
    table = []
    for i in range(len(deltas)):
        table.append([smooth_l1(deltas[i, m] - targets[i, m], beta) for m in range(4)])
    powers = [math.pow(iou, lam) for iou in ious]
    ratio = 1.0
    if normalize:
        above = sum(number(term) for row in table for term in row)
        below = sum(
            power * number(term) for power, row in zip(powers, table, strict=True) for term in row
        )
        if below == 0:
            powers = [1.0] * len(powers)
        else:
            ratio = above / below
    for i, power in enumerate(powers):
        table[i] = [weight * ratio * power * term for term in table[i]]
    return table


def value_and_grad(function, inputs, *args, **kwargs):
    """Sum of the terms, the terms as a float64 tensor, and the sum's gradient by `inputs`."""
    inputs = inputs.detach().double().requires_grad_()
    table = function(inputs, *args, **kwargs)
    flat = [term for row in table for term in (row if isinstance(row, list) else [row])]
    total = sum(flat) if flat else inputs.sum() * 0.0
    (grad,) = torch.autograd.grad(total, inputs)
    terms = torch.tensor([number(term) for term in flat], dtype=torch.float64)
    return number(total), terms, grad
