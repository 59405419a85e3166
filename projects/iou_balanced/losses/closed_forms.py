"""Closed forms of arXiv 1908.05641: bounded IoU (Eq. 9-12) and gradients (Eq. 8, 13, 14).

They explain the loss (Figure 2) and check it; training does not use them. All arguments and
results are elementwise tensors of any shape. d is the regression error in one parameter,
prediction minus target, in the R-CNN encoding.
"""

import torch
from torch import Tensor


def bounded_iou_center(offset: Tensor, target_size: Tensor) -> Tensor:
    """Eq. 9: upper bound of the IoU of boxes whose centres differ by `offset` in x (or y).

    Args:
        offset: in pixels.
        target_size: width, or height, of the target in pixels.

    Returns:
        In [0, 1]; 0 where the bound is negative.
    """
    offset = offset.abs()
    return ((target_size - offset) / (target_size + offset)).clamp(min=0)


def bounded_iou_size(pred_size: Tensor, target_size: Tensor) -> Tensor:
    """Eq. 10: upper bound of the IoU of boxes of these widths (or heights).

    Args:
        pred_size: width, or height, of the prediction in pixels.
        target_size: that of the target.
    """
    return torch.minimum(pred_size / target_size, target_size / pred_size)


def bounded_iou_center_from_offset(d: Tensor, size_ratio: float | Tensor = 1.0) -> Tensor:
    """Eq. 11: Eq. 9 from the regression error.

    Args:
        d: error in cx (or cy).
        size_ratio: anchor size / target size.

    Returns:
        The bound for |d| <= 1 / size_ratio; 0 beyond.
    """
    offset = size_ratio * d.abs()
    return ((1 - offset) / (1 + offset)).clamp(min=0)


def bounded_iou_size_from_offset(d: Tensor) -> Tensor:
    """Eq. 12: Eq. 10 from the regression error.

    Args:
        d: error in w (or h), of the logarithm of the size.
    """
    return torch.exp(-d.abs())


def smooth_l1_gradient(d: Tensor, beta: float = 1 / 9) -> Tensor:
    """Derivative of smooth L1 (Eq. 8 with weight 1): d / beta, or the sign of d beyond beta.

    Args:
        d: regression error.
        beta: where the square goes over into the line; 0 is L1.
    """
    return d.sign() if beta == 0 else (d / beta).clamp(-1, 1)


def smooth_l1_gradient_bound_center(
    d: Tensor, *, lam: float = 1.5, weight: float = 1.0, beta: float = 1 / 9
) -> Tensor:
    """Eq. 13: gradient of the IoU-balanced loss in d^cx or d^cy at the bound of Eq. 11.

    The anchor is as large as the target (w_t = w_s), as in the paper.

    Args:
        d: error in cx (or cy).
        lam: the paper's lambda, exponent of the IoU.
        weight: the paper's w_loc.
        beta: of smooth L1, see `smooth_l1_gradient`.
    """
    return weight * bounded_iou_center_from_offset(d) ** lam * smooth_l1_gradient(d, beta)


def smooth_l1_gradient_bound_size(
    d: Tensor, *, lam: float = 1.5, weight: float = 1.0, beta: float = 1 / 9
) -> Tensor:
    """Eq. 14: gradient of the IoU-balanced loss in d^w or d^h at the bound of Eq. 12.

    See `smooth_l1_gradient_bound_center` for the arguments; d is the error in w (or h).
    """
    return weight * bounded_iou_size_from_offset(d) ** lam * smooth_l1_gradient(d, beta)
