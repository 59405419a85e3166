"""Softmax cross entropy and its IoU-balanced form (arXiv 1908.05641, Eq. 1, 3-4).

Shapes: M samples, K foreground classes, P positives; background is the last column. Of a dense
detector: N images, Ri anchors of level i, R of all levels.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    check_exponents,
    check_flags,
    check_labels,
    check_pos_iou,
    check_reduction,
    reduce_terms,
    upcast,
)
from .class_tables import ClassWeights, expand_tables
from .fused.positives import find
from .iou_weights import iou_ratio_weights
from .value_checks import checks_values


def cross_entropy_terms(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, int]:
    """Cross entropy of each sample, of the labels' shape, 0 where ignored; and K.

    Args:
        pred_logits: (M, K + 1), or one (N, Ri, K + 1) a level.
        gt_labels: (M,), or (N, R).
        change: from logits (M, K + 1), float32 at least, and labels (M,), to other logits.

    Raises:
        ValueError: a shape, a dtype or a label on a CPU is not what the losses take.
    """
    levels = [pred_logits] if isinstance(pred_logits, Tensor) else list(pred_logits)
    shapes = [tuple(x.shape) for x in levels]
    dim = 2 if isinstance(pred_logits, Tensor) else 3
    if not shapes or any(len(s) != dim or s[-1] != shapes[0][-1] for s in shapes):
        raise ValueError(
            "Expected argument `pred_logits` of shape (M, K + 1), or one (N, Ri, K + 1) a level, "
            f"but got {shapes[0] if isinstance(pred_logits, Tensor) else shapes}"
        )
    if isinstance(pred_logits, Tensor):
        check_labels(pred_logits, gt_labels, shapes[0][-1] - 1)
        labels = [gt_labels]
    else:
        # A tensor of the whole shape without memory, for the same check and message.
        whole = (shapes[0][0], sum(s[1] for s in shapes), shapes[0][2])
        check_labels(levels[0].new_empty(1).expand(whole), gt_labels, shapes[0][2] - 1)
        labels = gt_labels.split([s[1] for s in shapes], dim=1)
    terms = []
    for x, y in zip(levels, labels, strict=True):
        flat, target = upcast(x).flatten(0, -2), y.flatten().long()
        flat = flat if change is None else change(flat, target)
        term = F.cross_entropy(flat, target, ignore_index=-1, reduction="none")
        terms.append(term.view_as(y))
    return terms[0] if len(terms) == 1 else torch.cat(terms, dim=1), shapes[0][-1] - 1


def sample_weights(
    class_weight: Tensor | ClassWeights, gt_labels: Tensor, num_classes: int, dtype: torch.dtype
) -> Tensor:
    """The weight of each sample's label, of the labels' shape; background (and ignored): 1.

    Args:
        class_weight: see `iou_balanced_cross_entropy`.
        gt_labels: (M,) or (N, R).
        num_classes: K.
        dtype: of the result.

    Raises:
        ValueError: the tables do not weigh whole rows, or are of other shapes.
    """
    tables = expand_tables(class_weight, num_classes, gt_labels.shape[0])
    if not tables.is_one_table and any(table is not None for table in tables[:3]):
        given = [name for name, table in tables._asdict().items() if table is not None]
        raise ValueError(
            "Expected argument `class_weight` to have one table, or one for rows, because softmax "
            "has one term for a sample and no columns to weigh apart (equalization loss needs a "
            f"sigmoid loss), but got the tables {given}"
        )
    table = tables.own if tables.row is None else tables.row
    if table is None:
        return torch.ones_like(gt_labels, dtype=dtype)
    table = table.to(dtype)
    if table.shape[1] == num_classes:  # background has weight 1
        table = torch.cat([table, table.new_ones(len(table), 1)], dim=1)
    labels = gt_labels.long().clamp(min=0)
    if len(table) == 1:
        return table[0][labels]
    # A table an image: the first dimension of the labels.
    return table.gather(1, labels.reshape(len(table), -1)).view_as(labels)


@checks_values(background_column=True)
def iou_balanced_cross_entropy(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    eta: float = 1.5,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
) -> Tensor:
    """IoU-balanced classification loss, Eq. 3-4 of arXiv 1908.05641, for a softmax classifier.

    The cross entropy of each positive is multiplied by iou^eta, scaled so that its sum over all
    positives given stays what it was; background samples keep weight 1. Where every IoU is 0
    Eq. 4 is 0/0, and the loss is the unweighted one. No gradient flows through a weight.

    Args:
        pred_logits: (M, K + 1), background last; computed in float32 (float64 for float64). Or a
            list of one (N, Ri, K + 1) a feature level, which saves their concatenation.
        gt_labels: (M,) int64: -1 ignored, 0..K-1 foreground, K background; (N, R) for a list,
            the levels one after the other. See `sigmoid_focal_loss` for other values.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        eta: exponent of the IoU, in [0, 100].
        class_weight: (K,), or (N, K) with N the first dimension of the labels: multiplies the
            term of each sample of the class, background by 1. Class weights come first: Eq. 4's
            ratio runs over the weighted terms. Of `ClassWeights` only `row` makes sense here.
        reduction: "sum"; "mean" divides by the samples that are not ignored; "none" gives
            the shape of the labels, with 0 where ignored.
        across_processes: take Eq. 4's two sums over the positives of all processes.

    Raises:
        ValueError: a shape, a dtype, eta, a label on a CPU or `reduction` is not as above.
    """
    check_reduction(reduction)
    check_exponents(eta=eta)
    terms, num_classes = cross_entropy_terms(pred_logits, gt_labels)
    if class_weight is not None:
        # No gradient flows into a weight.
        terms = terms * sample_weights(class_weight, gt_labels, num_classes, terms.dtype)
    if eta != 0:
        is_positive = (gt_labels >= 0) & (gt_labels < num_classes)
        given = None if pos_iou is None or pos_iou.dim() != 1 else len(pos_iou)
        places = find(is_positive, given)
        pos_iou = check_pos_iou(pos_iou, len(places))
        # Eq. 4; the weights carry no gradient.
        weights = torch.ones_like(terms)
        weights.view(-1)[places] = iou_ratio_weights(
            terms.detach().flatten()[places], pos_iou, eta, across_processes=across_processes
        )
        terms = terms * weights
    # Counted for "mean" alone: it takes a pass over the labels.
    return reduce_terms(terms, reduction, (gt_labels >= 0).sum() if reduction == "mean" else None)


class SoftmaxCrossEntropyLoss(nn.Module):
    """Softmax cross entropy on (M, K + 1) logits; -1 is ignored, background is the last class.

    Args:
        reduction: "sum", "mean" or "none"; see `iou_balanced_cross_entropy`.

    Raises:
        ValueError: `reduction` is not as above.
    """

    needs_pos_iou = False
    takes_levels = True
    is_softmax = True

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `iou_balanced_cross_entropy` with eta = 0."""
        return iou_balanced_cross_entropy(
            pred_logits,
            gt_labels,
            None,
            eta=0,
            class_weight=class_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class IoUBalancedCrossEntropyLoss(nn.Module):
    """Module form of `iou_balanced_cross_entropy`, Eq. 3-4 of arXiv 1908.05641.

    With `across_processes` (the default) Eq. 4's two sums run over the positives of all
    processes; every process then has to call the module equally often.

    Args:
        eta, reduction, across_processes: see `iou_balanced_cross_entropy`.

    Raises:
        ValueError: a value is not as there.
    """

    takes_levels = True
    is_softmax = True

    def __init__(self, *, eta: float = 1.5, reduction: str = "sum", across_processes: bool = True):
        super().__init__()
        check_reduction(reduction)
        check_exponents(eta=eta)
        check_flags(across_processes=across_processes)
        self.eta, self.reduction, self.across_processes = eta, reduction, across_processes

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`; eta = 0 is the plain loss."""
        return self.eta != 0

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None = None,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `iou_balanced_cross_entropy`; `pos_iou` may be left out where eta is 0.

        Raises:
            ValueError: an argument is not as there.
        """
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with eta={self.eta}, but got None")
        return iou_balanced_cross_entropy(
            pred_logits,
            gt_labels,
            pos_iou,
            eta=self.eta,
            class_weight=class_weight,
            reduction=self.reduction,
            across_processes=self.across_processes,
        )

    def extra_repr(self) -> str:
        return (
            f"eta={self.eta}, reduction={self.reduction!r}, "
            f"across_processes={self.across_processes}"
        )
