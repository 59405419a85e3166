"""What the elements cost that are no positive's own."""

from typing import NamedTuple

from torch import Tensor


class Negatives(NamedTuple):
    """scale * p^gamma softplus(x) for a logit x with p = sigmoid(x), before class weights."""

    gamma: float | Tensor
    """A number, or one for each class, (K,)."""
    scale: float = 1.0
    detached: bool = False
    """Whether p^gamma is a constant to the gradient."""
