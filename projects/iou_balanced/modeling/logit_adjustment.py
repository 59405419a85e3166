"""Class scores of a trained detector, adjusted by the frequencies of its training set.

No training is needed: `adjust_logits` puts an adjustment behind the classifier, in evaluation only.

Shapes: N images, A anchors in a cell, K foreground classes; logits (..., K), or (..., K + 1) with
background last where scores are softmaxes.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import Tensor, nn

from iou_balanced.losses.checks import check_non_negative, upcast


class TrainingCounts(Protocol):
    """What an adjustment asks of a training set; `iou_balanced.data.ClassCounts` has it."""

    class_names: tuple[str, ...]
    instances: tuple[int, ...]
    images: tuple[int, ...]
    num_images: int
    fractal_dimensions: tuple[float, ...] | None


class LogitAdjustment(nn.Module):
    """Base of the adjustments: called with logits, returns others, whose scores are the new ones.

    Args:
        class_counts: file of the training set's class counts, as a training leaves it; None: the
            one beside the weights.
        counted: what a class's frequency is: its share of all "instances", or the share of
            "images" that show it.

    Raises:
        ValueError: `counted` is none of these.
    """

    def __init__(self, *, class_counts: str | None = None, counted: str = "instances"):
        super().__init__()
        if counted not in ("instances", "images"):
            raise ValueError(
                f"Expected argument `counted` to be 'instances' or 'images', but got {counted!r}"
            )
        self.class_counts, self.counted = class_counts, counted
        self.num_classes: int | None = None

    def set_counts(self, counts: TrainingCounts) -> None:
        """Take the training set's counts, in the order of the model's classes.

        Args:
            counts: such as `iou_balanced.data.ClassCounts`.

        Raises:
            ValueError: a class has no instance, so that its adjustment would be infinite.
        """
        absent = [
            name for name, n in zip(counts.class_names, counts.instances, strict=True) if not n
        ]
        if absent:
            raise ValueError(
                f"Expected an instance of every class in the training set, but there is none of "
                f"{', '.join(map(repr, absent))}, whose logits would be adjusted without limit"
            )
        self.num_classes = len(counts.instances)
        self._take(counts)

    def _prior(self, counts: TrainingCounts) -> Tensor:
        """(K,) float64, the frequency of each class."""
        numbers = counts.instances if self.counted == "instances" else counts.images
        total = sum(counts.instances) if self.counted == "instances" else counts.num_images
        return torch.tensor(numbers, dtype=torch.float64) / total

    def _take(self, counts: TrainingCounts) -> None:
        raise NotImplementedError

    def forward(self, logits: Tensor, *, is_softmax: bool) -> Tensor:
        """Other logits, in float32 at least.

        Args:
            logits: (..., K), or with `is_softmax` (..., K + 1), background last.
            is_softmax: whether scores are softmaxes of them, or sigmoids.

        Raises:
            RuntimeError: the counts are not known.
            ValueError: the classes are not as many as the counts'.
        """
        if self.num_classes is None:
            raise RuntimeError(f"{type(self).__name__} has no counts: call set_counts before")
        if logits.shape[-1] != self.num_classes + is_softmax:
            raise ValueError(
                f"Expected logits of {self.num_classes} classes, as the class counts have, but "
                f"the model has {logits.shape[-1] - is_softmax}"
            )
        return self.adjusted(upcast(logits), is_softmax)

    def adjusted(self, logits: Tensor, is_softmax: bool) -> Tensor:
        """See `forward`; the logits are float32 or float64."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"class_counts={self.class_counts!r}, counted={self.counted!r}"


class PriorAdjustment(LogitAdjustment):
    """Plain logit adjustment after training (arXiv 2007.07314, Eq. 9): logits - tau log prior.

    From each class's logit tau (log p - log 1/K) is taken, p its frequency: classes that are rarer
    than in a balanced set go up, the others down, and background stays. (The paper's shift has no
    1/K, which in a softmax without background changes nothing.)

    Args:
        tau: 1 in the paper's derivation; 0 leaves all as it is.
        class_counts: see `LogitAdjustment`.
        counted: see `LogitAdjustment`.

    Raises:
        ValueError: a value is not as above.
    """

    shift: Tensor

    def __init__(
        self, *, tau: float = 1.0, class_counts: str | None = None, counted: str = "instances"
    ):
        super().__init__(class_counts=class_counts, counted=counted)
        check_non_negative(tau=tau)
        self.tau = tau
        self.register_buffer("shift", torch.zeros(0), persistent=False)

    def _take(self, counts: TrainingCounts) -> None:
        prior = self._prior(counts)
        shift = -self.tau * (prior * len(prior)).log()
        self.shift = F.pad(shift, (0, 1)).to(self.shift)  # background: 0

    def adjusted(self, logits: Tensor, is_softmax: bool) -> Tensor:
        """See `LogitAdjustment.adjusted`."""
        return logits + self.shift[: logits.shape[-1]].to(logits)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, {super().extra_repr()}"


class FractalAdjustment(LogitAdjustment):
    """FRACAL (arXiv 2410.11774): by frequency, and by how evenly a class is spread over the image.

    With p the frequency and Phi the fractal dimension of each class, and logarithms to the base 10,
    c = log(1/K) - log p. Where scores are softmaxes, the scores softmax(logits + c) / Phi^strength
    are scaled to the sum 1, with c = 0 and Phi = 1 of background. Where they are sigmoids, the
    score is sigmoid(logits) sigmoid(logits + c + d), with d = log(1/K) - log(Phi^strength / sum of
    Phi^strength). Formulas and defaults are those of the authors' public code.

    Args:
        strength: exponent of Phi (lambda of the paper), 2; 0 leaves out the space.
        class_counts: see `LogitAdjustment`; with fractal dimensions, as trainings write them.
        counted: see `LogitAdjustment`; images in the authors' code.

    Raises:
        ValueError: a value is not as above.
    """

    prior_shift: Tensor
    space: Tensor

    def __init__(
        self, *, strength: float = 2.0, class_counts: str | None = None, counted: str = "images"
    ):
        super().__init__(class_counts=class_counts, counted=counted)
        check_non_negative(strength=strength)
        self.strength = strength
        for name in ("prior_shift", "space"):
            self.register_buffer(name, torch.zeros(0), persistent=False)

    def _take(self, counts: TrainingCounts) -> None:
        if counts.fractal_dimensions is None:
            raise ValueError(
                "Expected class counts with fractal dimensions, which trainings and python -m "
                "iou_balanced.data.class_counts --json-file FILE --output FILE write, but these "
                "have none: they are of an earlier version, or of images without a size"
            )
        prior = self._prior(counts)
        phi = torch.tensor(counts.fractal_dimensions, dtype=torch.float64)
        self.prior_shift = F.pad(-(prior * len(prior)).log10(), (0, 1)).to(self.prior_shift)
        # strength * ln Phi, 0 of background.
        self.space = F.pad(self.strength * phi.log(), (0, 1)).to(self.space)

    def adjusted(self, logits: Tensor, is_softmax: bool) -> Tensor:
        """See `LogitAdjustment.adjusted`."""
        shift, space = (x[: logits.shape[-1]].to(logits) for x in (self.prior_shift, self.space))
        if is_softmax:
            return logits + shift - space
        share = space - space.logsumexp(0)
        shift = shift - (share + math.log(len(share))) / math.log(10)
        # The logit of sigmoid(a) sigmoid(b), of which 1 / product - 1 is e^-a + e^-b + e^(-a-b).
        a, b = logits, logits + shift
        return -torch.stack([-a, -b, -a - b]).logsumexp(dim=0)

    def extra_repr(self) -> str:
        return f"strength={self.strength}, {super().extra_repr()}"


def adjust_logits(model: nn.Module, adjustment: LogitAdjustment) -> list:
    """Put an adjustment behind the classifier of a trained detector, stock or ours.

    Parameters and checkpoints stay as they are; in training mode nothing changes. The scores that
    are thresholded, ranked and given out are then the adjusted ones.

    Args:
        model: a dense detector of Detectron2's kind with `head`, CenterNet, or an R-CNN.
        adjustment: with counts of as many classes; it moves to the model's device.

    Returns:
        Handles, whose `remove()` take it away.

    Raises:
        ValueError: the model is of another kind, or has other classes than the counts.
    """
    layers = [x for x in model.modules() if isinstance(x, FastRCNNOutputLayers)]
    head = getattr(model, "head", None)
    if not layers and not isinstance(head, nn.Module):
        raise ValueError(
            "Expected argument `model` to be a dense detector with `head`, or an R-CNN with a box "
            f"predictor, but got {type(model).__name__}"
        )
    for module in layers or [model]:
        count = getattr(module, "num_classes", None)
        if count is not None and adjustment.num_classes not in (None, count):
            raise ValueError(
                f"Expected class counts of the model's {count} classes, but got "
                f"{adjustment.num_classes}"
            )
    adjustment.to(next(model.parameters()).device)
    if layers:
        return [x.register_forward_hook(_box_head_hook(adjustment)) for x in layers]
    is_softmax = getattr(model, "by_softmax", False)
    columns = model.num_classes + is_softmax
    return [head.register_forward_hook(_dense_head_hook(adjustment, columns, is_softmax))]


def _box_head_hook(adjustment: LogitAdjustment):
    def hook(layers: nn.Module, _, output: tuple[Tensor, Tensor]):
        if layers.training:
            return None
        logits, deltas = output
        if not getattr(layers, "use_sigmoid_ce", False):
            return adjustment(logits, is_softmax=True), deltas
        adjusted = adjustment(logits[:, :-1], is_softmax=False)
        return torch.cat([adjusted, upcast(logits[:, -1:])], dim=1), deltas

    return hook


def _dense_head_hook(adjustment: LogitAdjustment, columns: int, is_softmax: bool):
    def of_map(x: Tensor) -> Tensor:
        """(N, A * columns, H, W)."""
        # No `unflatten` and no `movedim`: in an ONNX graph the first would hold the size of the map
        # that was traced, and the second a -1.
        n, _, h, w = x.shape
        by_column = x.reshape(n, -1, columns, h, w).permute(0, 1, 3, 4, 2)
        adjusted = adjustment(by_column, is_softmax=is_softmax)
        return adjusted.permute(0, 1, 4, 2, 3).reshape(n, -1, h, w)

    def hook(head: nn.Module, _, output):
        if head.training:
            return None
        if hasattr(output, "heatmap"):  # CenterNet's
            return output._replace(heatmap=of_map(output.heatmap))
        logits, *others = output
        return ([of_map(x) for x in logits], *others)

    return hook
