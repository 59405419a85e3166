"""Cut polygons with a rectangle.

fvcore's CropTransform leaves this to shapely, which Detectron2 does not require, and which repairs
a polygon that crosses itself by throwing parts of it away. Hand-drawn masks do cross themselves.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["clip_polygon"]

_MIN_AREA = 1e-6  # square pixels; what merely touches the rectangle has none but for rounding


def clip_polygon(polygon: np.ndarray, box: Sequence[float]) -> list[np.ndarray]:
    """The parts of a polygon that are inside a rectangle.

    The rectangle's four sides cut one after the other, as in Sutherland and Hodgman's algorithm,
    but a polygon that falls into several pieces comes back as several: no edges join them. Where a
    polygon crosses itself, inside is what the even-odd rule says, as in COCO's masks.

    Args:
        polygon: (V, 2), the vertices' (x, y) in order, the last one not the first again.
        box: (x0, y0, x1, y1).

    Returns:
        list[ndarray]: new arrays of the same form; empty if nothing of the polygon is inside.
    """
    x0, y0, x1, y1 = box
    pieces = [np.asarray(polygon, dtype=np.float64)]
    for axis, bound, sign in ((0, x0, 1), (0, x1, -1), (1, y0, 1), (1, y1, -1)):
        pieces = [part for piece in pieces for part in _cut(piece, axis, bound, sign)]
    pieces = [_without_repeats(piece) for piece in pieces]
    return [piece for piece in pieces if _area(piece) > _MIN_AREA]


def _cut(polygon: np.ndarray, axis: int, bound: float, sign: int) -> list[np.ndarray]:
    """The pieces of a polygon where sign * (x - bound) >= 0, x being the coordinate `axis`."""
    distance = sign * (polygon[:, axis] - bound)
    if (distance >= 0).all():
        return [polygon]
    # A vertex on the line is outside, or what touches it from there would leave spikes behind.
    inside = distance > 0

    # Each run of vertices inside is a chain that enters from the line and leaves to it.
    chains = []
    for first in np.flatnonzero(inside & ~np.roll(inside, 1)):
        order = np.roll(np.arange(len(polygon)), -first)
        run = order[: np.argmin(inside[order])]
        ends = [_crossing(polygon, distance, i, j) for i, j in ((run[0], -1), (run[-1], 1))]
        for end in ends:
            end[axis] = bound
        chains.append(np.concatenate([ends[:1], polygon[run], ends[1:]]))

    # Along the line, inside and outside alternate: the 1st and 2nd crossing are joined by an edge
    # of the result, the 3rd and 4th, ... Each crossing is thus the end of one chain and one edge,
    # so that walking along both in turn comes back to where it started. Of crossings at one point,
    # where a vertex touches the line, that one is next which leaves if the last one entered.
    def position(crossing):
        chain, end = crossing
        return chains[chain][end, 1 - axis]

    crossings = [(chain, end) for chain in range(len(chains)) for end in (0, -1)]
    crossings.sort(key=position)
    joined = {}
    while crossings:
        a = crossings.pop(0)
        nearest = [c for c in crossings if position(c) == position(crossings[0])]
        b = next((c for c in nearest if c[1] != a[1]), nearest[0])
        crossings.remove(b)
        joined[a], joined[b] = b, a

    pieces = []
    left = set(range(len(chains)))
    while left:
        start = here = (min(left), 0)
        piece = []
        while not piece or here != start:
            chain, end = here
            left.discard(chain)
            piece.append(chains[chain] if end == 0 else chains[chain][::-1])
            here = joined[chain, -1 - end]
        pieces.append(np.concatenate(piece))
    return pieces


def _crossing(polygon: np.ndarray, distance: np.ndarray, i: int, step: int) -> np.ndarray:
    """Where the edge from vertex i, inside, to its neighbour, outside, meets the line."""
    j = (i + step) % len(polygon)
    if distance[j] == 0:
        return polygon[j].copy()  # exactly, so that edges that meet there have one crossing
    t = distance[i] / (distance[i] - distance[j])
    return polygon[i] + t * (polygon[j] - polygon[i])


def _without_repeats(polygon: np.ndarray) -> np.ndarray:
    return polygon[(polygon != np.roll(polygon, 1, axis=0)).any(axis=1)]


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
