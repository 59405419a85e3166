"""The weight of each positive from its IoU: Eq. 4 and 7 of IoU-balanced losses (arXiv 1908.05641).

The paper stops the gradient at the weights; everything here runs without gradient.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all processes, a new tensor; `x` itself where there is one process only."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


@torch.no_grad()
def iou_power_sums(
    terms: Tensor, pos_iou: Tensor, exponent: float, *, across_processes: bool = False
) -> tuple[Tensor, Tensor]:
    """The two sums that Eq. 4 and 7 are the ratio of.

    Args:
        terms: see `iou_ratio_weights`.
        pos_iou: see `iou_ratio_weights`.
        exponent: see `iou_ratio_weights`.
        across_processes: see `iou_ratio_weights`.

    Returns:
        iou^exponent of each positive, (P,), and the sums of the terms and of iou^exponent times
        the terms, (2,); float64.
    """
    # In float64, because iou^exponent of a poor box underflows in float32 and the ratio of the
    # two sums would overflow; P numbers cost nothing.
    terms = terms.double()
    iou_power = pos_iou.double() ** exponent
    sums = torch.stack([terms.sum(), iou_power.dot(terms)])
    if across_processes:
        # Every process takes part, also one without positives: it adds zeros.
        sums = all_reduce_sum(sums)
    return iou_power, sums


@torch.no_grad()
def weights_from_sums(iou_power: Tensor, sums: Tensor) -> Tensor:
    """(P,) weights of Eq. 4 and 7 from what `iou_power_sums` gives."""
    total, weighted = sums
    # A NaN is not <= 0 and stays visible: it is the caller's business to stop at a loss that is
    # not finite.
    return torch.where(weighted <= 0, 1.0, iou_power * (total / weighted))


@torch.no_grad()
def iou_ratio_weights(
    terms: Tensor, pos_iou: Tensor, exponent: float, *, across_processes: bool = False
) -> Tensor:
    """Weights iou^exponent * sum(terms) / sum(iou^exponent * terms): Eq. 4, and Eq. 7.

    They leave the sum of the terms as it is. Where every weighted term is 0 the ratio is 0/0,
    and every weight is 1.

    Args:
        terms: (P,) loss of each positive, at least 0.
        pos_iou: (P,) IoU of each regressed positive with its ground truth.
        exponent: eta (Eq. 4) or lambda (Eq. 7), at least 0.
        across_processes: take the two sums over all processes of the default process group.

    Returns:
        (P,) weights without gradient, in the dtype of `terms`.
    """
    if exponent == 0:
        return torch.ones_like(terms)
    sums = iou_power_sums(terms, pos_iou, exponent, across_processes=across_processes)
    return weights_from_sums(*sums).to(terms.dtype)
