"""Value and gradient of sigmoid focal loss in one pass over the logits, without one-hot targets.

With p = sigmoid(x), softplus(x) = -log(1 - p) and the focusing exponent g:
    background: (1 - alpha) p^g softplus(x),
        derivative (1 - alpha) p^g [g (1 - p) softplus(x) + p];
    foreground: alpha (1 - p)^g softplus(-x): the same at -x, with alpha for 1 - alpha.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import upcast
from .row_index import RowIndex


def _focal(x: Tensor, gamma: float, with_grad: bool) -> tuple[Tensor, Tensor | None]:
    """p^g softplus(x) and its derivative, both new tensors."""
    softplus, p = F.softplus(x), torch.sigmoid(x)
    modulation = p**gamma
    grad = None
    if with_grad:
        grad = (1 - p).mul_(softplus).mul_(gamma).add_(p).mul_(modulation)
    return softplus.mul_(modulation), grad


def _alphas(alpha: float) -> tuple[float, float]:
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def _positive_terms(flat, positives, class_weight, num_rows, alpha, gamma, with_grad):
    x = upcast(flat[positives.rows, positives.classes])
    terms, grad = _focal(-x, gamma, with_grad)
    scale = _alphas(alpha)[0]
    if class_weight is not None:
        images = _image_of(positives.rows, num_rows, class_weight)
        scale = scale * class_weight[images, positives.classes].to(x.dtype)
    return terms * scale, None if grad is None else grad * -scale


@torch.no_grad()
def positive_terms(
    pred_logits: Tensor,
    gt_labels: Tensor,
    positives: RowIndex,
    class_weight: Tensor | None,
    alpha: float,
    gamma: float,
) -> Tensor:
    """(P,) loss of each positive's own class column, class-weighted, without gradient."""
    flat = pred_logits.reshape(-1, pred_logits.shape[-1])
    terms, _ = _positive_terms(
        flat, positives, class_weight, gt_labels.numel(), alpha, gamma, with_grad=False
    )
    return terms


def _image_of(rows: Tensor, num_rows: int, class_weight: Tensor) -> Tensor:
    """Index of the image, a row of `class_weight` (N, K), that each row of logits belongs to."""
    return rows // max(num_rows // max(class_weight.shape[0], 1), 1)


class FocalTerms(torch.autograd.Function):
    """Focal loss terms: (..., K) float for reduction "none", else their sum.

    The gradient is made together with the value, so that one float32 tensor of the logits' size
    is kept for the backward pass, and nothing else of that size outlives a chunk. It is float32
    for half precision too: a float16 slope would underflow before the loss scale reaches it.
    """

    @staticmethod
    def forward(
        ctx, pred_logits, gt_labels, positives, pos_weight, class_weight, alpha, gamma, reduction
    ):
        num_classes, with_grad = pred_logits.shape[-1], ctx.needs_input_grad[0]
        flat, labels = pred_logits.reshape(-1, num_classes), gt_labels.reshape(-1)
        dtype = torch.promote_types(pred_logits.dtype, torch.float32)
        elementwise = flat.new_empty(flat.shape, dtype=dtype) if reduction == "none" else None
        grad = torch.empty_like(flat, dtype=dtype) if with_grad else None

        pos_value, pos_slope = _positive_terms(
            flat, positives, class_weight, labels.numel(), alpha, gamma, with_grad
        )
        if pos_weight is not None:
            pos_value = pos_value * pos_weight
            pos_slope = pos_slope * pos_weight if with_grad else None

        sums = [flat.new_zeros((), dtype=dtype)]
        for rows, pos, ignored in positives.chunks:
            value, slope = _focal(upcast(flat[rows]), gamma, with_grad)
            scale = _alphas(alpha)[1]
            if class_weight is not None:
                images = torch.arange(rows.start, rows.stop, device=flat.device)
                images = _image_of(images, labels.numel(), class_weight)
                scale = scale * class_weight.to(dtype)[images]
            own = (positives.rows[pos] - rows.start, positives.classes[pos])
            value.mul_(scale)[own] = pos_value[pos]
            value[ignored] = 0
            if with_grad:
                slope.mul_(scale)[own] = pos_slope[pos]
                slope[ignored] = 0
                grad[rows] = slope
            if elementwise is None:
                sums.append(value.sum())
            else:
                elementwise[rows] = value

        ctx.save_for_backward(grad)
        ctx.shape, ctx.dtype = pred_logits.shape, pred_logits.dtype
        if elementwise is None:
            return torch.stack(sums).sum()
        return elementwise.reshape(pred_logits.shape)

    @staticmethod
    def backward(ctx, grad_output):
        if torch.is_grad_enabled():
            raise RuntimeError("focal loss here has no second derivative (create_graph=True)")
        (grad,) = ctx.saved_tensors
        if grad_output.dim():
            grad_output = grad_output.reshape(grad.shape)
        grad = (grad * grad_output).to(ctx.dtype)
        return grad.reshape(ctx.shape), None, None, None, None, None, None, None
