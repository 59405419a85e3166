"""Sigmoid focal loss and its IoU-balanced form (arXiv 1908.05641, Eq. 3-4).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_exponents, check_flags, check_focal_alpha, check_pos_iou, check_reduction
from .class_tables import ClassWeights
from .fused.backends import check_backend
from .fused.elements import own_focal
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .iou_weights import iou_ratio_weights
from .sigmoid_scores import RowScores
from .value_checks import checks_values


def _check(alpha: float, reduction: str, backend: str | None, **exponents: float) -> None:
    check_reduction(reduction)
    check_exponents(**exponents)
    check_focal_alpha(alpha)
    check_backend(backend)


@checks_values()
def sigmoid_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sigmoid focal loss on class indices (RetinaNet, arXiv 1708.02002, Eq. 5).

    Equals fvcore's `sigmoid_focal_loss` on the one-hot targets, which are never made: beside the
    logits there is their gradient, and no other tensor of that size.

    Args:
        pred_logits: (..., K), any float dtype; computed in float32 (float64 for float64). Or a
            list of one (N, Ri, K) a feature level, which saves their concatenation.
        gt_labels: (...,) int64: -1 ignored, 0..K-1 foreground, K background; (N, R) for a
            list, the levels one after the other. Other values are refused on a CPU; on a GPU,
            where a look at them would make it wait, `losses.checks.check_label_values` does.
        alpha: weight of the foreground terms, 1 - alpha that of the background, in [0, 1]; below
            0: no weighting, as in fvcore.
        gamma: focusing exponent, in [0, 100].
        class_weight: (K,), or (N, K) with N the first dimension of the logits. Multiplies every
            element of the class's column, background included; no gradient flows into it. Or
            `ClassWeights`, tables apart for a positive's own column, its other columns,
            background rows, and whole rows.
        reduction: "sum"; "mean" divides by the elements that are not ignored; "none" gives
            (..., K) with 0 where ignored.
        num_positives: P where the caller knows it: a GPU is then not waited for.
        backend: "eager", "compile" or "triton"; None chooses, see `losses.fused.backends`.

    Raises:
        ValueError: a shape, a dtype, alpha, gamma, a label on a CPU or `reduction` is not as above.
        RuntimeError: in the backward pass, with create_graph=True: no second derivative.
    """
    return iou_balanced_focal_loss(
        pred_logits,
        gt_labels,
        None,
        eta=0,
        alpha=alpha,
        gamma=gamma,
        class_weight=class_weight,
        reduction=reduction,
        num_positives=num_positives,
        backend=backend,
    )


@checks_values()
@own_graph
def iou_balanced_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    eta: float = 1.5,
    alpha: float = 0.25,
    gamma: float = 2.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """IoU-balanced classification loss, Eq. 3-4 of arXiv 1908.05641, with focal loss for CE.

    Each positive's own class column is multiplied by iou^eta, scaled so that the sum of these
    terms over all positives given stays what it was. Class weights come first: Eq. 4's ratio
    runs over the weighted terms. Where every IoU is 0 Eq. 4 is 0/0, and the loss is the
    unweighted one. eta = 0 is exactly `sigmoid_focal_loss`. No gradient flows through a weight.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`. Not looked at where eta is 0.
        eta: exponent of the IoU, in [0, 100]; 1.5 in the paper (Table 3).
        alpha: see `sigmoid_focal_loss`.
        gamma: see `sigmoid_focal_loss`.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: take Eq. 4's two sums over the positives of all processes.
        num_positives: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or `pos_iou` is not (P,), or not in [0, 1] (looked at
            on a CPU, and on a GPU with debugging on), or eta is not as above.
    """
    _check(alpha, reduction, backend, gamma=gamma, eta=eta)
    if num_positives is None and eta != 0 and pos_iou is not None and pos_iou.dim() == 1:
        num_positives = len(pos_iou)
    scores = RowScores(
        pred_logits, gt_labels, class_weight, num_positives=num_positives, backend=backend
    )
    own_alpha, rest_alpha = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
    rest, own_logits = scores.split(Negatives(gamma, rest_alpha), reduction)
    terms = own_focal(own_logits, gamma) * own_alpha * scores.own_weights(own_logits.dtype)
    if eta != 0:
        pos_iou = check_pos_iou(pos_iou, scores.num_positives)
        # Eq. 4; the weights carry no gradient.
        terms = terms * iou_ratio_weights(
            terms.detach(), pos_iou, eta, across_processes=across_processes
        )
    return scores.reduce(rest, terms, reduction)


def balance_oriented_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    class_weight: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "sum",
) -> Tensor:
    """Balance-oriented focal loss, Eq. 9 of the paper of that name.

    Each class's weight multiplies every element of its column, background included. The weights
    come from `balance_oriented_weights`; the detector's own alpha stays. This is
    `sigmoid_focal_loss` with a `class_weight`: the loss of any detector with a `class_balance`.

    Args:
        pred_logits: (N, R, K), or one (N, Ri, K) a feature level.
        gt_labels: (N, R) integers: -1 ignored, 0..K-1 foreground, K background.
        class_weight: (N, K), of each image k and class i: w-hat_{i,k}.
        alpha: see `sigmoid_focal_loss`.
        gamma: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`.
    """
    return sigmoid_focal_loss(
        pred_logits,
        gt_labels,
        alpha=alpha,
        gamma=gamma,
        class_weight=class_weight,
        reduction=reduction,
    )


class SigmoidFocalLoss(nn.Module):
    """Module form of `sigmoid_focal_loss`; the classification loss of a stock RetinaNet.

    Args:
        alpha, gamma, reduction, backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = False
    takes_levels = takes_num_positives = True

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = "sum",
        backend: str | None = None,
    ):
        super().__init__()
        _check(alpha, reduction, backend, gamma=gamma)
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction
        self.backend = backend

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
        num_positives: int | None = None,
    ) -> Tensor:
        """See `sigmoid_focal_loss`."""
        return sigmoid_focal_loss(
            pred_logits,
            gt_labels,
            alpha=self.alpha,
            gamma=self.gamma,
            class_weight=class_weight,
            reduction=self.reduction,
            num_positives=num_positives,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}"


class IoUBalancedFocalLoss(nn.Module):
    """Module form of `iou_balanced_focal_loss`, Eq. 3-4 of arXiv 1908.05641.

    With `across_processes` (the default) Eq. 4's two sums run over the positives of all
    processes, so that N processes give the gradients of one with the whole batch. Every process
    then has to call the module equally often.

    Args:
        eta, alpha, gamma, reduction, across_processes, backend: see `iou_balanced_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    takes_levels = takes_num_positives = True

    def __init__(
        self,
        *,
        eta: float = 1.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        super().__init__()
        _check(alpha, reduction, backend, eta=eta, gamma=gamma)
        check_flags(across_processes=across_processes)
        self.eta, self.alpha, self.gamma = eta, alpha, gamma
        self.reduction, self.across_processes = reduction, across_processes
        self.backend = backend

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
        num_positives: int | None = None,
    ) -> Tensor:
        """See `iou_balanced_focal_loss`; `pos_iou` may be left out where eta is 0.

        Raises:
            ValueError: an argument is not as there.
        """
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with eta={self.eta}, but got None")
        return iou_balanced_focal_loss(
            pred_logits,
            gt_labels,
            pos_iou,
            eta=self.eta,
            alpha=self.alpha,
            gamma=self.gamma,
            class_weight=class_weight,
            reduction=self.reduction,
            across_processes=self.across_processes,
            num_positives=num_positives,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"eta={self.eta}, alpha={self.alpha}, gamma={self.gamma}, "
            f"reduction={self.reduction!r}, across_processes={self.across_processes}"
        )
