"""What the focal losses share: the sum of the kernel over feature levels.

Shapes: K foreground classes, P positives; logits (..., K).
"""

import torch
from torch import Tensor

from .checks import reduce_terms
from .class_tables import ClassWeights, expand_tables
from .focal_kernel import FocalTerms
from .levels import Part


def tables_for(class_weight: Tensor | ClassWeights | None, logits: Tensor) -> ClassWeights:
    """The tables of `class_weight` for logits (..., K), whose first dimension is N."""
    num_images = logits.shape[0] if logits.dim() > 1 else None
    return expand_tables(class_weight, logits.shape[-1], num_images)


def reduce_parts(
    parts: list[Part],
    tables: ClassWeights,
    alpha: float,
    gamma: float,
    reduction: str,
    *,
    pos_weight: Tensor | None = None,
    pos_target: Tensor | None = None,
) -> Tensor:
    """Focal loss of all parts.

    Args:
        parts: see `split_levels`.
        tables: see `tables_for`.
        alpha: see `sigmoid_focal_loss`.
        gamma: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        pos_weight: (P,) factor on each positive's own element, or None.
        pos_target: (P,) target of it in [0, 1], or None for 1; see `quality_focal_loss`.
    """
    results = [
        FocalTerms.apply(  # type: ignore[no-untyped-call]
            part.logits,
            part.labels,
            part.positives,
            None if pos_weight is None else pos_weight[part.order],
            None if pos_target is None else pos_target[part.order],
            tables,
            alpha,
            gamma,
            reduction,
        )
        for part in parts
    ]
    if reduction == "none":
        return results[0] if len(results) == 1 else torch.cat(results, dim=1)
    total = results[0] if len(results) == 1 else torch.stack(results).sum()
    if reduction == "mean":
        count = torch.stack([(part.labels >= 0).sum() for part in parts]).sum()
        return reduce_terms(total, "mean", count * parts[0].logits.shape[-1])
    return total
