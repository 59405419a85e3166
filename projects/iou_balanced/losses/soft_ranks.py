"""Differentiable ranks (Fast differentiable sorting and ranking, arXiv 2002.08871).

Shapes: P values.
"""

import torch
from torch import Tensor


def soft_ranks(values: Tensor, strength: float) -> Tensor:
    """(P,) ranks, 1 for the smallest, with gradient: the values over `strength`, projected onto the
    permutahedron of 1..P (Eq. 4 and Proposition 3 of the paper, quadratic regularisation).

    Values that are at least `strength` apart from their neighbours have their ranks, and no
    gradient. Closer ones share theirs, in proportion to their distances. Where all are that close
    the ranks are the values over `strength`, but for a constant. Equal values have equal ranks.

    Args:
        values: (P,).
        strength: of the regularisation, above 0, in the unit of the values.
    """
    scaled = values / strength
    order = scaled.argsort(descending=True, stable=True)
    ordered = scaled[order]
    ranks = torch.arange(len(values), 0, -1, device=values.device, dtype=values.dtype)
    # A decreasing sequence is fitted to the difference, block by block, and taken off.
    difference = ordered - ranks
    block = torch.tensor(_blocks(difference.tolist()), device=values.device, dtype=torch.int64)
    sums = torch.zeros_like(difference).index_add(0, block, difference)
    sizes = torch.zeros_like(difference).index_add(0, block, torch.ones_like(difference))
    soft = ordered - (sums / sizes.clamp(min=1))[block]
    return torch.empty_like(soft).scatter(0, order, soft)


def _blocks(sequence: list[float]) -> list[int]:
    """The block of each entry: pool adjacent violators, for the nearest decreasing sequence."""
    sums: list[float] = []
    sizes: list[int] = []
    for value in sequence:
        size = 1
        while sums and sums[-1] * size <= value * sizes[-1]:
            value += sums.pop()
            size += sizes.pop()
        sums.append(value)
        sizes.append(size)
    return [block for block, size in enumerate(sizes) for _ in range(size)]
