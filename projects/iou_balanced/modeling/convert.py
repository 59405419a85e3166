"""From a stock LazyConfig to the balanced detector in one line."""

from detectron2.config import LazyCall
from detectron2.modeling import RetinaNet
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from iou_balanced.losses import (
    IoUBalancedFocalLoss,
    IoUBalancedSmoothL1Loss,
    SigmoidFocalLoss,
    SmoothL1Loss,
)

from .normalizer import LossNormalizer
from .retinanet import BalancedRetinaNet

_NORMALIZER = (LossNormalizer, "iou_balanced.modeling.normalizer.LossNormalizer")


def balance(
    model: DictConfig,
    *,
    eta: float | None = 1.5,
    lam: float | None = 1.5,
    weight: float | str = "auto",
    beta: float | None = 1 / 9,
    normalize: bool = False,
    across_processes: bool = True,
) -> DictConfig:
    """Turn the LazyConfig of a stock RetinaNet into that of the IoU-balanced one, in place.

    Args:
        model: a LazyCall of Detectron2's `RetinaNet`, from the model zoo or the user's own, or
            of `BalancedRetinaNet`, whose losses are replaced then.
        eta: exponent of the IoU in the classification loss (Eq. 4); None leaves focal loss.
        lam: exponent in the localization loss (Eq. 6); None leaves plain smooth L1.
        weight: w_loc (Eq. 6), a number or "auto".
        beta: of smooth L1. The stock config has 0, which is L1; the default here is the paper's
            0.111, for which its lambda and w_loc were tuned. None keeps the config's own.
        normalize: Eq. 7 instead of Eq. 6; "auto" is 1 then, because Eq. 7 keeps every sum.
        across_processes: take the normaliser and all sums over all processes.

    Returns:
        `model`, for assignment: `cfg.model = balance(cfg.model)`.

    Raises:
        ValueError: `model` is no RetinaNet, or has a box loss other than smooth L1; or a value is
            none that the losses take. `model` is unchanged then.
    """
    target = model.get("_target_") if isinstance(model, DictConfig) else None
    if isinstance(target, str):
        target = locate(target)
    is_balanced = isinstance(target, type) and issubclass(target, BalancedRetinaNet)
    if target is not RetinaNet and not is_balanced:
        whole = isinstance(model, DictConfig) and target is None and "model" in model
        raise ValueError(
            "Expected argument `model` to be a LazyCall of detectron2's RetinaNet or of "
            f"BalancedRetinaNet, but got {target or type(model)}"
            + ("; give the config's `.model`" if whole else "")
        )
    if model.get("box_reg_loss_type", "smooth_l1") != "smooth_l1":
        raise ValueError(
            "Expected a config with box_reg_loss_type='smooth_l1', because Eq. 5-6 weigh smooth "
            f"L1, but got {model.box_reg_loss_type!r}"
        )
    cls_loss, box_loss = model.get("cls_loss") or {}, model.get("box_loss") or {}
    alpha = cls_loss.get("alpha", model.get("focal_loss_alpha", 0.25))
    gamma = cls_loss.get("gamma", model.get("focal_loss_gamma", 2.0))
    if normalize and weight == "auto":
        weight = 1.0
    if beta is None:
        beta = box_loss.get("beta", model.get("smooth_l1_beta", 0.0))

    # Made once here, so that an impossible value is an error before anything is changed.
    if eta is not None:
        IoUBalancedFocalLoss(eta=eta, alpha=alpha, gamma=gamma)
    if lam is not None:
        IoUBalancedSmoothL1Loss(lam=lam, weight=weight, beta=beta, normalize=normalize)

    # The losses hold these now; the balanced detector does not take them.
    for key in ("focal_loss_alpha", "focal_loss_gamma", "smooth_l1_beta", "box_reg_loss_type"):
        model.pop(key, None)
    if not is_balanced:
        model._target_ = BalancedRetinaNet
    if not model.get("loss_normalizer"):  # one of the user's own stays as it is
        model.loss_normalizer = LazyCall(LossNormalizer)(across_processes=across_processes)
    elif model.loss_normalizer.get("_target_") in _NORMALIZER:
        model.loss_normalizer.across_processes = across_processes
    if eta is None:
        model.cls_loss = LazyCall(SigmoidFocalLoss)(alpha=alpha, gamma=gamma)
    else:
        model.cls_loss = LazyCall(IoUBalancedFocalLoss)(
            eta=eta, alpha=alpha, gamma=gamma, across_processes=across_processes
        )
    if lam is None:
        model.box_loss = LazyCall(SmoothL1Loss)(beta=beta)
    else:
        model.box_loss = LazyCall(IoUBalancedSmoothL1Loss)(
            lam=lam,
            weight=weight,
            beta=beta,
            normalize=normalize,
            across_processes=across_processes,
        )
    return model
