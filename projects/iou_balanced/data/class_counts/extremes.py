"""Class weights that are out of all proportion, and what would tame them."""

import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Context

# The largest weight by Eq. 5 on COCO train2017 is 53.7: the histogram that Detectron2 logs, which
# leaves crowd boxes out as we do, has 849949 boxes of 80 classes, 198 of them hair driers, and
# 849949 / (80 * 198) = 53.7. There Balance-oriented focal loss gains with the full weights
# (Table 1). On COCO-LT, which is extremely imbalanced, they cost 3.3 AP, and an intensity of 5%
# turns that into a gain (Table 12).
LIMIT = 60.0


def warn_extreme(
    alpha: Iterable[float],
    class_names: Sequence[str],
    limit: float = LIMIT,
    *,
    instances: Sequence[int] | None = None,
) -> str | None:
    """A warning where the largest weight is above `limit`, with the intensity that mends it.

    The intensity i, as in Eq. 7 with lambda = 1, makes a weight 1 + i (alpha - 1). The one that is
    named is the largest of two significant digits that keeps every weight within the limit.

    Args:
        alpha: (K,) weights before any intensity, for example by Eq. 5.
        class_names: K names.
        limit: above 1.
        instances: (K,) to be named as well.

    Returns:
        One sentence; None where no weight is above the limit.

    Raises:
        ValueError: bad `limit`, a weight that is not finite, or lengths that differ.
    """
    if not limit > 1:
        raise ValueError(f"Expected argument `limit` to be greater than 1, but got {limit!r}")
    weights = [float(a) for a in alpha]
    if len(weights) != len(class_names):
        raise ValueError(
            f"Expected argument `alpha` to have {len(class_names)} values, but got {len(weights)}"
        )
    if not all(math.isfinite(w) for w in weights):
        raise ValueError(f"Expected argument `alpha` to be finite, but got {weights}")
    most = max(weights, default=0.0)
    if most <= limit:
        return None
    k = weights.index(most)
    count = "" if instances is None else f" ({instances[k]} instance{'s' * (instances[k] != 1)})"
    return (
        f"The weight of class {class_names[k]!r}{count} is {most:.1f}, more than {limit:g}, which "
        f"can make the training unstable: an intensity of {_intensity(most, limit)} would keep "
        "all weights within that."
    )


def _intensity(most: float, limit: float) -> str:
    """(limit - 1) / (most - 1), rounded down to two significant digits."""
    # Rounded to twelve digits first: 0.29 is 0.28999999999999998 in binary, and would become 0.28.
    exact = f"{(limit - 1) / (most - 1):.12g}"
    return f"{Context(prec=2, rounding=ROUND_DOWN).create_decimal(exact):f}"
