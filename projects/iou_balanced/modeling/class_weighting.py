"""How a detector calls its `class_balance`.

Shapes: N images, R rows over all images, K foreground classes.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iou_balanced.losses import ClassWeights


def check_class_balance(
    class_balance: nn.Module | None, cls_loss: nn.Module, num_classes: int
) -> None:
    """Refuse a class balance that the classification loss can do nothing with.

    Raises:
        ValueError: the loss takes no `class_weight`; it is a softmax and the weighting needs a
            sigmoid; or the classes are not as many.
    """
    if class_balance is None:
        return
    names = type(class_balance).__name__, type(cls_loss).__name__
    if "class_weight" not in inspect.signature(cls_loss.forward).parameters:
        raise ValueError(
            "Expected argument `cls_loss` to take `class_weight`, because `class_balance` is "
            f"{names[0]}, but {names[1]}.forward does not"
        )
    if getattr(class_balance, "needs_sigmoid", False) and getattr(cls_loss, "is_softmax", False):
        raise ValueError(
            f"Expected argument `cls_loss` to be a sigmoid loss, because {names[0]} weighs the "
            f"classes of one sample apart, and softmax has one term for all, but got {names[1]}"
        )
    count = getattr(class_balance, "num_classes", num_classes)
    if count != num_classes:
        raise ValueError(
            f"Expected argument `class_balance` to have num_classes={num_classes}, as the model, "
            f"but got {count}"
        )


def weights_by_row(
    class_weight: Tensor | ClassWeights | None, sizes: Sequence[int]
) -> Tensor | ClassWeights | None:
    """Tables (N, K) by image -> (R, K) by row, for images of `sizes` rows each; (K,) stays."""
    if class_weight is None:
        return None
    if isinstance(class_weight, ClassWeights):
        return ClassWeights(*(weights_by_row(table, sizes) for table in class_weight))
    if class_weight.dim() == 1:
        return class_weight
    sizes = torch.tensor(sizes)
    total = int(sizes.sum())
    return class_weight.repeat_interleave(sizes.to(class_weight.device), dim=0, output_size=total)
