"""The shape that all losses with an IoU in their target have.

Each element of dense class scores has a target: for a positive's own element one that is made of
its IoU, and 0 for all others. A member of the family is then two things: the loss of the own
elements, a function of their logits and IoUs, and the loss of the others (`Negatives`). What
carries gradient in the first is decided there, by autograd; in the second by `detached`.

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    check_exponents,
    check_flags,
    check_pos_iou,
    check_reduction,
)
from .class_tables import ClassWeights
from .fused.backends import check_backend
from .fused.elements import own_focal
from .fused.negatives import Negatives
from .iou_weights import iou_ratio_weights
from .sigmoid_scores import RowScores


def quality_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    own_loss: Callable[[Tensor, Tensor], Tensor],
    negatives: Negatives,
    *,
    name: str,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """The loss of a member of the family.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`, in [0, 1]; no gradient flows into it.
        own_loss: called with the logits (P,) of the positives' own elements, which have gradient,
            and with their IoUs (P,), which have none; returns the loss (P,) of each.
        negatives: the loss of the other elements.
        name: of the loss, for errors.
        eta: exponent of IoU-balanced weights (Eq. 4 of arXiv 1908.05641) on the own elements,
            which keep the sum of their loss; 0 for none.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: take Eq. 4's two sums over the positives of all processes.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
        RuntimeError: in the backward pass, with create_graph=True: no second derivative.
    """
    check_reduction(reduction)
    check_exponents(eta=eta)
    num_positives = None if pos_iou is None or pos_iou.dim() != 1 else len(pos_iou)
    scores = RowScores(
        pred_logits, gt_labels, class_weight, num_positives=num_positives, backend=backend
    )
    pos_iou = check_pos_iou(pos_iou, scores.num_positives).detach()
    rest, own_logits = scores.split(negatives, reduction, name=name)
    # Rounding may give an IoU just above 1, of which some formula has no power or logarithm.
    pos_iou = pos_iou.to(own_logits.dtype).clamp(0, 1)
    terms = own_loss(own_logits, pos_iou) * scores.own_weights(own_logits.dtype)
    if eta != 0:
        terms = terms * iou_ratio_weights(
            terms.detach(), pos_iou, eta, across_processes=across_processes
        )
    return scores.reduce(rest, terms, reduction)


def soft_target_loss(own_logits: Tensor, target: Tensor) -> Tensor:
    """(P,) -t log p - (1 - t) log(1 - p): binary cross entropy with the targets t."""
    return F.binary_cross_entropy_with_logits(own_logits, target, reduction="none")


def as_negative(own_logits: Tensor, negatives: Negatives) -> Tensor:
    """(P,) what own elements would cost as negatives."""
    if negatives.detached:
        modulation = own_logits.detach().sigmoid() ** negatives.gamma
        return (
            negatives.scale
            * modulation
            * soft_target_loss(own_logits, torch.zeros_like(own_logits))
        )
    # own_focal is (1 - p)^gamma softplus(-x); the negative's loss is the same at -x.
    return negatives.scale * own_focal(-own_logits, negatives.gamma)


class QualityLoss(nn.Module):
    """Base of the modules of the family; a subclass has `_compute`, the function's call.

    Args:
        eta: see `quality_loss`.
        reduction: see `quality_loss`.
        across_processes: see `quality_loss`. Every process then has to call the module equally
            often.
        backend: see `quality_loss`.
        hyperparameters: of the subclass; they become attributes.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = True
    takes_levels = True
    takes_over = ("reduction", "across_processes", "backend")
    """What stays where a command line puts this loss in the place of another. The others' alpha
    and gamma mean something else, and the defaults here are those of the paper."""

    def __init__(
        self,
        *,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
        **hyperparameters: Any,
    ):
        super().__init__()
        check_reduction(reduction)
        check_exponents(eta=eta)
        check_flags(across_processes=across_processes)
        check_backend(backend)
        self.hyperparameters = {
            **hyperparameters,
            "eta": eta,
            "reduction": reduction,
            "across_processes": across_processes,
            "backend": backend,
        }
        for key, value in self.hyperparameters.items():
            setattr(self, key, value)

    def arguments(self) -> dict[str, Any]:
        """The hyperparameters by name, as they are now."""
        return {key: getattr(self, key) for key in self.hyperparameters}

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """The loss; see `quality_loss`.

        Args:
            pred_logits: see `quality_loss`.
            gt_labels: see `quality_loss`.
            pos_iou: see `quality_loss`.
            class_weight: see `quality_loss`.
        """
        return self._compute(
            pred_logits, gt_labels, pos_iou, class_weight=class_weight, **self.arguments()
        )

    @staticmethod
    def _compute(*args: Any, **kwargs: Any) -> Tensor:
        """The function that a subclass is the module of."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments().items())
