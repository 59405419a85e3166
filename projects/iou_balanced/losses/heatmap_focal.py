"""Penalty-reduced focal loss of heat maps and its IoU-balanced form, with class weights.

Shapes: N images, K foreground classes, H x W cells of a heat map, P centres.

Class weights on a heat map. A tensor (K,) or (N, K) weighs every element of the class's map,
background included (Eq. 6 and 9 of Balance-oriented focal loss). `ClassWeights` weighs elements
by their kind. What is foreground follows Section 5.7 of that paper: where the ground truth is 0
is background, the rest foreground. A cell is background where all of its K values are 0;
otherwise it is foreground, and its label is the class of the largest value, the first of equals.
    own: elements whose ground truth is above 0;
    other: elements whose ground truth is 0, of a foreground cell;
    background: all elements of a background cell;
    row: all elements of a cell, by its label, K for background.
"""

from torch import Tensor, nn

from .checks import check_exponents, check_flags, check_pos_iou, check_reduction
from .class_tables import ClassWeights
from .fused.backends import check_backend
from .fused.elements import own_focal
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .iou_weights import iou_ratio_weights
from .sigmoid_scores import HeatMapScores
from .value_checks import checks_values


def _check_heatmaps(pred_logits: Tensor, gt_heatmap: Tensor) -> None:
    """Check shapes and dtypes.

    Raises:
        ValueError: they are not both (N, K, H, W) of a float dtype.
    """
    for name, x in [("pred_logits", pred_logits), ("gt_heatmap", gt_heatmap)]:
        if not x.is_floating_point():
            raise ValueError(
                f"Expected argument `{name}` to be of a float dtype, but got {x.dtype}"
            )
    if pred_logits.dim() != 4:
        raise ValueError(
            "Expected argument `pred_logits` to have the four dimensions (N, K, H, W), "
            f"but got {tuple(pred_logits.shape)}"
        )
    if gt_heatmap.shape != pred_logits.shape:
        raise ValueError(
            "Expected argument `gt_heatmap` to have the shape of `pred_logits`, "
            f"{tuple(pred_logits.shape)}, but got {tuple(gt_heatmap.shape)}"
        )


@checks_values()
def penalty_reduced_focal_loss(
    pred_logits: Tensor,
    gt_heatmap: Tensor,
    *,
    class_weight: Tensor | ClassWeights | None = None,
    alpha: float = 2.0,
    beta: float = 4.0,
    reduction: str = "sum",
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Penalty-reduced pixel-wise focal loss of heat maps, Eq. 1 of CornerNet (arXiv 1808.01244)
    and of CenterNet (arXiv 1904.07850), without their division by the number of objects.

    With p = sigmoid(pred_logits), an element costs -(1 - p)^alpha log(p) where the ground truth
    is 1, the centre of an object, and -(1 - gt)^beta p^alpha log(1 - p) elsewhere. It is computed
    from the logits exactly. The authors' implementations clamp p to [1e-4, 1 - 1e-4], where the
    gradient of a badly wrong score is 0; here it never is.

    Args:
        pred_logits: (N, K, H, W), any float dtype and memory format; computed in float32
            (float64 for float64). No other tensor of that size is made than the gradient.
        gt_heatmap: (N, K, H, W) float in [0, 1]; an element is a centre where it is exactly 1.
            No gradient flows into it.
        class_weight: (K,) or (N, K) multiplies every element of the class's map, background
            included; `ClassWeights` weighs the kinds of elements apart, see this module. No
            gradient flows into it.
        alpha: exponent of the score, in [0, 100]; 2 in both papers.
        beta: exponent of the penalty reduction around a centre, in [0, 100]; 4 in both papers.
        reduction: "sum"; "mean" divides by the number of elements; "none" gives (N, K, H, W).
        num_positives: P where the caller knows it, from `pos_iou` or else: a GPU is then not
            waited for.
        backend: "eager", "compile" or "triton"; None chooses, see `losses.fused.backends`.

    Raises:
        ValueError: a shape, a dtype, alpha, beta or `reduction` is not as above.
        RuntimeError: in the backward pass, with create_graph=True: no second derivative.
    """
    check_reduction(reduction)
    return iou_balanced_penalty_reduced_focal_loss(
        pred_logits,
        gt_heatmap,
        None,
        eta=0,
        class_weight=class_weight,
        alpha=alpha,
        beta=beta,
        reduction=reduction,
        num_positives=num_positives,
        backend=backend,
    )


@checks_values()
@own_graph
def iou_balanced_penalty_reduced_focal_loss(
    pred_logits: Tensor,
    gt_heatmap: Tensor,
    pos_iou: Tensor | None,
    *,
    eta: float = 1.5,
    class_weight: Tensor | ClassWeights | None = None,
    alpha: float = 2.0,
    beta: float = 4.0,
    reduction: str = "sum",
    across_processes: bool = False,
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """IoU-balanced classification loss, Eq. 3-4 of arXiv 1908.05641, on the centres of heat maps.

    The term of each centre, an element whose ground truth is 1, is multiplied by iou^eta, scaled
    so that the sum of these terms over all centres given stays what it was. All other elements
    are left alone. Class weights come first: Eq. 4's ratio runs over the weighted terms. Where
    every weighted term is 0, as with every IoU 0, Eq. 4 is 0/0, and the loss is the plain one.
    eta = 0 is exactly `penalty_reduced_focal_loss`. No gradient flows through a weight.

    Args:
        pred_logits: (N, K, H, W); see `penalty_reduced_focal_loss`.
        gt_heatmap: (N, K, H, W); see `penalty_reduced_focal_loss`.
        pos_iou: (P,) IoU of the box decoded at each centre with its ground truth, in the order
            of `(gt_heatmap == 1).nonzero()`. Not looked at where eta is 0.
        eta: exponent of the IoU, in [0, 100]; 1.5 in the paper (Table 3).
        class_weight: see `penalty_reduced_focal_loss`.
        alpha: see `penalty_reduced_focal_loss`.
        beta: see `penalty_reduced_focal_loss`.
        reduction: see `penalty_reduced_focal_loss`.
        across_processes: take Eq. 4's two sums over the centres of all processes.
        num_positives: see `penalty_reduced_focal_loss`.
        backend: see `penalty_reduced_focal_loss`.

    Raises:
        ValueError: as `penalty_reduced_focal_loss`; `pos_iou` is not (P,); or eta is not as above.
    """
    check_reduction(reduction)
    check_exponents(alpha=alpha, beta=beta, eta=eta)
    _check_heatmaps(pred_logits, gt_heatmap)
    if num_positives is None and eta != 0 and pos_iou is not None and pos_iou.dim() == 1:
        num_positives = len(pos_iou)
    scores = HeatMapScores(
        pred_logits,
        gt_heatmap,
        class_weight,
        beta=beta,
        num_positives=num_positives,
        backend=backend,
    )
    rest, own_logits = scores.split(Negatives(alpha), reduction)
    terms = own_focal(own_logits, alpha) * scores.own_weights(own_logits.dtype)
    if eta != 0:
        pos_iou = check_pos_iou(pos_iou, scores.num_positives)
        # Eq. 4; the weights carry no gradient.
        terms = terms * iou_ratio_weights(
            terms.detach(), pos_iou, eta, across_processes=across_processes
        )
    return scores.reduce(rest, terms, reduction)


class PenaltyReducedFocalLoss(nn.Module):
    """Module form of `penalty_reduced_focal_loss`; the classification loss of CenterNet.

    Args:
        alpha, beta, reduction, backend: see `penalty_reduced_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = False
    takes_num_positives = True
    of_heatmaps = True

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 4.0,
        reduction: str = "sum",
        backend: str | None = None,
    ):
        super().__init__()
        check_reduction(reduction)
        check_backend(backend)
        check_exponents(alpha=alpha, beta=beta)
        self.alpha, self.beta, self.reduction = alpha, beta, reduction
        self.backend = backend

    def forward(
        self,
        pred_logits: Tensor,
        gt_heatmap: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
        num_positives: int | None = None,
    ) -> Tensor:
        """See `penalty_reduced_focal_loss`."""
        return penalty_reduced_focal_loss(
            pred_logits,
            gt_heatmap,
            class_weight=class_weight,
            alpha=self.alpha,
            beta=self.beta,
            reduction=self.reduction,
            num_positives=num_positives,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, reduction={self.reduction!r}"


class IoUBalancedPenaltyReducedFocalLoss(nn.Module):
    """Module form of `iou_balanced_penalty_reduced_focal_loss`, Eq. 3-4 of arXiv 1908.05641.

    With `across_processes` (the default) Eq. 4's two sums run over the centres of all processes,
    so that N processes give the gradients of one with the whole batch. Every process then has to
    call the module equally often.

    Args:
        eta, alpha, beta, reduction, across_processes, backend: see
            `iou_balanced_penalty_reduced_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    takes_num_positives = True
    of_heatmaps = True

    def __init__(
        self,
        *,
        eta: float = 1.5,
        alpha: float = 2.0,
        beta: float = 4.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        super().__init__()
        check_reduction(reduction)
        check_backend(backend)
        check_exponents(eta=eta, alpha=alpha, beta=beta)
        check_flags(across_processes=across_processes)
        self.eta, self.alpha, self.beta = eta, alpha, beta
        self.reduction, self.across_processes = reduction, across_processes
        self.backend = backend

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`; eta = 0 is the plain loss."""
        return self.eta != 0

    def forward(
        self,
        pred_logits: Tensor,
        gt_heatmap: Tensor,
        pos_iou: Tensor | None = None,
        *,
        class_weight: Tensor | ClassWeights | None = None,
        num_positives: int | None = None,
    ) -> Tensor:
        """See `iou_balanced_penalty_reduced_focal_loss`; `pos_iou` may be left out at eta = 0.

        Raises:
            ValueError: an argument is not as there.
        """
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with eta={self.eta}, but got None")
        return iou_balanced_penalty_reduced_focal_loss(
            pred_logits,
            gt_heatmap,
            pos_iou,
            eta=self.eta,
            class_weight=class_weight,
            alpha=self.alpha,
            beta=self.beta,
            reduction=self.reduction,
            across_processes=self.across_processes,
            num_positives=num_positives,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"eta={self.eta}, alpha={self.alpha}, beta={self.beta}, "
            f"reduction={self.reduction!r}, across_processes={self.across_processes}"
        )
