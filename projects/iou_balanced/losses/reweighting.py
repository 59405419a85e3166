"""Class weights from instance counts (Balance-oriented focal loss; no arXiv id is known for it).

Shapes: N images, K foreground classes. Equations are those of the paper "Balance-Oriented Focal
Loss with Linear Scheduling for Anchor Free Object Detection" where nothing else is said.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_exponents, check_fraction, is_number

HATS = ("base", "power")


def inverse_frequency_weights(
    counts: Sequence[float] | Tensor, *, floor: float | None = None
) -> Tensor:
    """alpha_i = n / (K n_i), Eq. 5: 1 for every class where all are equally frequent.

    Args:
        counts: (K,) instances of each class in the training set, crowd boxes left out.
        floor: above 0; a class with fewer instances counts as having this many; n stays as it is.
            Without it a class that has no instance is an error, as its weight would be infinite.

    Returns:
        (K,) float64.

    Raises:
        ValueError: `counts` is no vector of numbers from 0 on, or a class has no instance and
            there is no floor.
    """
    counts = _check_counts(counts, floor)
    return counts.sum() / (len(counts) * _floored(counts, floor))


def effective_number_weights(
    counts: Sequence[float] | Tensor,
    beta: float,
    *,
    normalize: bool = False,
    floor: float | None = None,
) -> Tensor:
    """alpha_i = (1 - beta) / (1 - beta^n_i), Eq. 2: class-balanced loss (arXiv 1901.05555).

    Args:
        counts: (K,); see `inverse_frequency_weights`.
        beta: in [0, 1); 0 gives 1 for every class, and the limit 1 the inverse of the counts.
        normalize: scale the weights to the sum K, as the authors of class-balanced loss do; the
            equation alone gives weights far below 1.
        floor: see `inverse_frequency_weights`.

    Returns:
        (K,) float64.

    Raises:
        ValueError: as `inverse_frequency_weights`, or beta is not in [0, 1).
    """
    if not is_number(beta) or not 0 <= beta < 1:
        raise ValueError(f"Expected argument `beta` to be in [0, 1), but got {beta!r}")
    counts = _floored(_check_counts(counts, floor), floor)
    if beta == 0:
        return torch.ones_like(counts)
    # 1 - beta^n without cancellation: beta is close to 1, and n may be small.
    alpha = (1 - beta) / -torch.expm1(counts * math.log(beta))
    return alpha * (len(alpha) / alpha.sum()) if normalize else alpha


def power_frequency_weights(
    counts: Sequence[float] | Tensor, power: float, *, floor: float | None = None
) -> Tensor:
    """(1 / n_i)^power, scaled to the mean 1: what Ultralytics calls `cls_pw` (their #23565).

    Args:
        counts: (K,); see `inverse_frequency_weights`.
        power: from 0 on; 0 gives 1 for every class, and 1 the inverse frequency of Eq. 5 at
            another scale: there an instance weighs 1 on average, and here a class.
        floor: see `inverse_frequency_weights`.

    Returns:
        (K,) float64.

    Raises:
        ValueError: as `inverse_frequency_weights`, or the power is not as above.
    """
    check_exponents(power=power)
    counts = _floored(_check_counts(counts, floor), floor)
    alpha = (counts / counts.min()) ** -power  # relative, against underflow
    return alpha / alpha.mean()


def schedule_weights(alpha: Tensor, progress: float, intensity: float = 1.0) -> Tensor:
    """alpha-hat_i = 1 + lambda (alpha_i - 1), Eq. 7.

    Args:
        alpha: (K,) weights of Eq. 5 or 2.
        progress: lambda in [0, 1], see `linear_schedule`.
        intensity: further factor on alpha - 1; 0.05 in Table 12.
    """
    return 1 + (progress * intensity) * (alpha - 1)


def balance_oriented_weights(
    alpha: Tensor,
    image_counts: Tensor,
    *,
    eta: float,
    progress: float,
    intensity: float = 1.0,
    hat: str = "base",
) -> Tensor:
    """w-hat_{i,k} = alpha-hat_i eta-hat^n_{i,k}, Eq. 7 and 8.

    The paper writes a hat on eta, "to apply linear scheduling technique as Equation 7". Read here
    as the same schedule on the base: eta-hat = 1 + lambda (eta - 1), so that eta-hat^n is 1 at the
    start and eta^n at the end.

    Args:
        alpha: (K,) weights of Eq. 5, before any schedule.
        image_counts: (N, K) instances of each class in each image; 0 for a class that is absent.
        eta: in [0, 1]; 0.8 for CenterNet and 0.999 for FCOS in the paper. 1: no batch balancing.
        progress: lambda in [0, 1], see `linear_schedule`.
        intensity: further factor on alpha - 1 (not on eta - 1); 0: no weighting factor.
        hat: "base" as above; "power" is the other reading, 1 + lambda (eta^n - 1).

    Returns:
        (N, K) without gradient, of the dtype of `alpha`.

    Raises:
        ValueError: a shape or a value is not as above.
    """
    if alpha.dim() != 1 or image_counts.dim() != 2 or image_counts.shape[1] != len(alpha):
        raise ValueError(
            "Expected arguments `alpha` and `image_counts` of shapes (K,) and (N, K), "
            f"but got {tuple(alpha.shape)} and {tuple(image_counts.shape)}"
        )
    check_fraction(eta=eta, progress=progress)
    if hat not in HATS:
        raise ValueError(f"Expected argument `hat` to be one of {HATS}, but got {hat!r}")
    alpha, counts = alpha.detach(), image_counts.detach().to(alpha.dtype)
    if hat == "base":
        batch = (1 + progress * (eta - 1)) ** counts  # Eq. 8
    else:
        batch = 1 + progress * (eta**counts - 1)
    return schedule_weights(alpha, progress, intensity) * batch


def tail_classes(image_counts: Sequence[float] | Tensor, tail_ratio: float = 0.0867) -> Tensor:
    """The rarest classes, by the tail ratio of equalization loss (arXiv 2003.05176, Eq. 6).

    The ratio is image-centric: the sum over the tail of the images that show a class, divided by
    the same sum over all classes. A threshold on the images of a class divides tail and head: here
    the one whose ratio is nearest to `tail_ratio`, of equals the lower one. On COCO the BOFL paper
    gives 8.67% (Table 11); the means in its Table 10 and 11 fit a tail of 21 of the 80 classes.

    Args:
        image_counts: (K,) training images that show each class.
        tail_ratio: in [0, 1].

    Returns:
        (K,) bool, True for the tail. Classes with equally many images are on the same side.

    Raises:
        ValueError: `image_counts` is no vector of numbers from 0 on, or the ratio not in [0, 1].
    """
    check_fraction(tail_ratio=tail_ratio)
    counts = _check_counts(image_counts, absent_allowed=True)
    thresholds = torch.cat([counts.unique(), counts.new_tensor([torch.inf])])
    below = counts < thresholds[:, None]
    ratios = (below * counts).sum(dim=1) / counts.sum().clamp(min=1)
    return below[(ratios - tail_ratio).abs().argmin()]


def _floored(counts: Tensor, floor: float | None) -> Tensor:
    return counts if floor is None else counts.clamp(min=floor)


def check_class_lists(num_classes: int, **values: Sequence[object] | None) -> None:
    """Check arguments, given by name, that have to be None or have one entry for each class.

    Raises:
        ValueError: one of them is something else.
    """
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, (str, dict)) or not hasattr(value, "__len__"):
            raise ValueError(
                f"Expected argument `{name}` to be a list, one entry a class, but got {value!r}"
            )
        if len(value) != num_classes:
            raise ValueError(
                f"Expected argument `{name}` to have a number for each of the {num_classes} "
                f"classes, but got {len(value)}"
            )


def _check_counts(
    counts: Sequence[float] | Tensor, floor: float | None = None, *, absent_allowed: bool = False
) -> Tensor:
    """(K,) float64 on the CPU.

    Raises:
        ValueError: they are no vector of numbers from 0 on; `floor` is not above 0; or a class has
            no instance, which needs `floor` or `absent_allowed`.
    """
    try:
        counts = torch.as_tensor(counts, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as e:
        raise ValueError(
            f"Expected argument `counts` to have one number for each class, but got {counts!r}"
        ) from e
    if counts.dim() != 1 or not len(counts):
        raise ValueError(
            "Expected argument `counts` to have one number for each class, shape (K,), "
            f"but got {tuple(counts.shape)}"
        )
    if not bool((counts.isfinite() & (counts >= 0)).all()):
        raise ValueError(f"Expected argument `counts` to be at least 0, but got {counts.tolist()}")
    if floor is None and not absent_allowed:
        absent = (counts == 0).nonzero().flatten().tolist()
        if absent:
            raise ValueError(
                f"Expected an instance of every class, but the classes {absent} have none, and "
                "their weights would be infinite: leave them out of the data set, or give `floor`, "
                "a number of instances that such a class counts as having"
            )
    if floor is not None and not (is_number(floor) and 0 < floor < math.inf):
        raise ValueError(f"Expected argument `floor` to be greater than 0, but got {floor!r}")
    return counts
