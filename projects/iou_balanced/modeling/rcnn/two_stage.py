"""What the losses of RPN and of the box head share."""

from torch import nn

from iou_balanced.modeling.loss_families import box_family, check_cls_loss, check_modules
from iou_balanced.modeling.loss_state import warn_if_state_was_lost


def check_losses(
    cls_loss: nn.Module,
    box_loss: nn.Module,
    box2box_transform,
    *,
    refused: tuple[type[nn.Module], ...],
    reason: str,
) -> None:
    """Refuse what cannot be combined with a stage of an R-CNN.

    Args:
        cls_loss: of the stage.
        box_loss: of the stage.
        box2box_transform: of the stage.
        refused: classes of classification losses that read the logits in another way.
        reason: what is asked for instead; continues the error's "to be".

    Raises:
        ValueError: a loss is no module, is one of these or of heat maps, or gives no sum, or the
            boxes are rotated.
    """
    check_modules(cls_loss=cls_loss, box_loss=box_loss)
    if isinstance(cls_loss, refused):
        raise ValueError(
            f"Expected argument `cls_loss` to be {reason}, but got {type(cls_loss).__name__}"
        )
    check_cls_loss(cls_loss, on_heatmaps=False, by_softmax=True)
    if getattr(cls_loss, "needs_pos_object", False):
        raise ValueError(
            "Expected argument `cls_loss` to be a loss that needs no objects, because the sampled "
            f"anchors here carry none, but got {type(cls_loss).__name__}"
        )
    for name, loss in (("cls_loss", cls_loss), ("box_loss", box_loss)):
        reduction = getattr(loss, "reduction", "sum")
        if reduction != "sum":
            raise ValueError(
                f"Expected argument `{name}` to have reduction='sum', because the sum is divided "
                f"by the number of samples here, but got {reduction!r}"
            )
    if len(box2box_transform.weights) != 4:
        raise ValueError(
            "Expected argument `box2box_transform` to be of axis-aligned boxes (four weights), "
            "because the IoU of rotated boxes is another one, but got "
            f"{type(box2box_transform).__name__}"
        )


def choose_box_loss(box_loss: nn.Module | None, box_reg_loss_type: str, beta: float) -> nn.Module:
    """`box_loss`, or in its place the plain loss that the stock arguments name.

    Raises:
        ValueError: both are given, or there is no such type.
    """
    if box_loss is None:
        family = box_family(box_reg_loss_type)
        return family.plain(**({"beta": beta} if "beta" in family.arguments else {}))
    if box_reg_loss_type != "smooth_l1" or beta != 0:
        raise ValueError(
            "Expected argument `box_loss` without `box_reg_loss_type` and `smooth_l1_beta`, which "
            f"it stands for, but got {box_reg_loss_type!r} and {beta} too"
        )
    return box_loss


def warn_at_first_call(stage: nn.Module) -> None:
    """`warn_if_state_was_lost` for a stage with `box_loss`, before its first batch counts."""
    if not stage.state_checked:
        # A w_loc of "auto" is state, a number has nothing to lose; and so are statistics.
        has_statistics = hasattr(stage.cls_loss, "statistics")
        if has_statistics or getattr(stage.box_loss, "w_loc", 0.0) is None:
            warn_if_state_was_lost(stage)
        stage.state_checked = True
