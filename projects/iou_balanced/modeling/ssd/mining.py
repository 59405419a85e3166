"""Hard negative mining (Liu et al., arXiv 1512.02325, Section 2.2).

Shapes: N images, R default boxes over all levels, K foreground classes.
"""

import torch
from torch import Tensor

from iou_balanced.losses.debug import may_look_at


@torch.no_grad()
def mine_hard_negatives(
    terms: Tensor, gt_labels: Tensor, num_classes: int, ratio: float = 3.0
) -> Tensor:
    """The background boxes of each image with the highest loss.

    Of an image with p positives these are floor(ratio * p), or all its background boxes where
    there are fewer; of an image without positives none, as in the authors' code and MMDetection.

    Args:
        terms: (N, R) classification loss of each box.
        gt_labels: (N, R) in {-1, 0..K}, K background; -1 is never mined.
        num_classes: K.
        ratio: negatives for each positive, at most.

    Returns:
        (N, R) bool.
    """
    background = gt_labels == num_classes
    num_pos = ((gt_labels >= 0) & ~background).sum(dim=1)
    num_neg = torch.minimum((ratio * num_pos).long(), background.sum(dim=1))
    most = gt_labels.shape[1]
    if may_look_at(num_neg):  # a GPU would be waited for: it sorts all of them
        most = int(num_neg.max()) if len(num_neg) else 0
    order = terms.masked_fill(~background, -torch.inf).topk(most, dim=1).indices
    mined = torch.zeros_like(background)
    return mined.scatter_(1, order, torch.arange(most, device=order.device) < num_neg[:, None])
