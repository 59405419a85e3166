"""The losses for class imbalance once more, from their papers, element by element in Python.

Numbers of torch in float64, so that autograd gives the gradients; nothing of the package is used.
"""

import math

import torch


def constant(x):
    return x.detach()


def sigmoid_elements(logits, labels):
    """(row, column, p, whether it is the row's own) of all elements that count."""
    num_classes = logits.shape[-1]
    for row, label in enumerate(labels.flatten().tolist()):
        if label < 0:
            continue
        for column in range(num_classes):
            x = logits.reshape(-1, num_classes)[row, column]
            yield row, column, 1 / (1 + torch.exp(-x)), column == label


def equalized_focal(logits, labels, ratio, gamma=2.0, alpha=0.25, scale=8.0, weight=None):
    """Eq. 3-5 of arXiv 2201.02593."""
    total = logits.sum() * 0
    for _, k, p, is_own in sigmoid_elements(logits, labels):
        exponent = gamma + scale * (1 - min(max(float(ratio[k]), 0.0), 1.0))
        p_t = p if is_own else 1 - p
        alpha_t = 1.0 if alpha < 0 else (alpha if is_own else 1 - alpha)
        w = 1.0 if weight is None else float(weight[k])
        total = total - w * alpha_t * exponent / gamma * (1 - p_t) ** exponent * torch.log(p_t)
    return total


def equalization_v2(logits, labels, ratio, steepness=12.0, midpoint=0.8, boost=4.0, gamma=0.0):
    """Eq. 5-8 of arXiv 2012.08548."""
    total = logits.sum() * 0
    for _, k, p, is_own in sigmoid_elements(logits, labels):
        negative = 1 / (1 + math.exp(-steepness * (float(ratio[k]) - midpoint)))
        p_t, w = (p, 1 + boost * (1 - negative)) if is_own else (1 - p, negative)
        total = total - w * (1 - p_t) ** gamma * torch.log(p_t)
    return total


def gradient_sums(loss, logits, labels):
    """(positive, negative): sums of |slope| over own and other elements, by column."""
    (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
    num_classes = logits.shape[-1]
    own = torch.nn.functional.one_hot(labels.clamp(0, num_classes), num_classes + 1).bool()
    own = own[..., :num_classes] & (labels >= 0).unsqueeze(-1)
    grad = grad.abs().reshape(-1, num_classes)
    own = own.reshape(-1, num_classes)
    return torch.stack([(grad * own).sum(0), (grad * ~own).sum(0)])


def seesaw(logits, labels, counts, p=0.8, q=2.0, eps=0.01):
    """Eq. 3-6 of arXiv 2008.10032; the last column, and its samples, as in cross entropy."""
    num_classes = logits.shape[1] - 1
    total = logits.sum() * 0
    for x, label in zip(logits, labels.tolist(), strict=True):
        if label < 0:
            continue
        scores = constant(torch.exp(x[:num_classes]) / torch.exp(x[:num_classes]).sum())
        denominator = torch.exp(x[num_classes])
        for j in range(num_classes):
            factor = 1.0
            if label < num_classes and j != label:
                of_i, of_j = max(float(counts[label]), 1.0), max(float(counts[j]), 1.0)
                if of_i > of_j:
                    factor *= (of_j / of_i) ** p
                if scores[j] > max(scores[label], eps):
                    factor *= (scores[j] / max(scores[label], eps)) ** q
            denominator = denominator + factor * torch.exp(x[j])
        total = total - torch.log(torch.exp(x[label]) / denominator)
    return total
