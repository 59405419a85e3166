import numpy as np
import pytest

from iou_balanced.geometry.polygons import clip_polygon

# An opening to the right:      x 0 1 2 3 4
#                           y 0   #########
#                             1   #########
#                             2   ###
#                             3   #########
U = np.array([(0, 0), (4, 0), (4, 2), (1, 2), (1, 3), (4, 3), (4, 4), (0, 4)], dtype=float)


def area(polygon):
    """With the sign of the direction of rotation."""
    x, y = polygon.T
    return 0.5 * (np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def bounds(polygon):
    return [*polygon.min(axis=0).tolist(), *polygon.max(axis=0).tolist()]


def contains(polygons, points):
    """Even-odd rule: does a ray to the right cross the edges an odd number of times?"""
    x, y = points.T
    inside = np.zeros(len(points), dtype=bool)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 != y1:
                spans = (y0 > y) != (y1 > y)
                inside ^= spans & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


@pytest.mark.parametrize("polygon", [U, U[::-1], np.roll(U, 3, axis=0)])
def test_hand_worked(polygon):
    # the whole, also with its edges on the rectangle's
    for box in ((-1, -1, 9, 9), (0, 0, 4, 4)):
        (piece,) = clip_polygon(polygon, box)
        assert piece.tolist() == polygon.tolist() and piece is not polygon
    # both arms, without an edge between them
    pieces = sorted(clip_polygon(polygon, (2, -1, 3, 9)), key=lambda p: p[0, 1])
    assert [bounds(p) for p in pieces] == [[2, 0, 3, 2], [2, 3, 3, 4]]
    assert [abs(area(p)) for p in pieces] == [2, 1]
    # one arm, its edge on the rectangle's
    (piece,) = clip_polygon(polygon, (2, 0, 3, 2))
    assert bounds(piece) == [2, 0, 3, 2] and len(piece) == 4
    # the base and a bit of both arms: still one
    (piece,) = clip_polygon(polygon, (0.5, 1, 2, 3.5))
    assert abs(area(piece)) == 1.5 * 2.5 - 1 * 1
    # nothing: beyond, within the opening, and touching an edge or a corner from outside
    for box in ((5, 0, 6, 1), (2, 2.1, 9, 2.9), (1, 2, 4, 3), (4, 0, 5, 4), (4, 4, 5, 5)):
        assert clip_polygon(polygon, box) == []


def test_the_polygon_is_not_touched():
    polygon = U.copy()
    for piece in clip_polygon(polygon, (0, 0, 4, 4)) + clip_polygon(polygon, (1, 1, 3, 3)):
        piece += 1
    assert np.array_equal(polygon, U)
    assert clip_polygon([(0, 0), (2, 0), (2, 2)], (0, 0, 9, 9))[0].dtype == np.float64


def test_a_vertex_that_touches_the_cut_splits_in_any_direction():
    """Two teeth that meet at (4, 2) on the line y = 2: above it are two triangles."""
    teeth = np.array([(0, 0), (40, 0), (35, 4), (4, 2), (0.5, 4)])
    for polygon in (teeth, teeth[::-1], np.roll(teeth, 2, axis=0)):
        pieces = sorted(clip_polygon(polygon, (-9, 2, 99, 9)), key=lambda p: p[:, 0].min())
        assert [bounds(p) for p in pieces] == [[0.25, 2, 4, 4], [4, 2, 37.5, 4]]
        assert [abs(area(p)) for p in pieces] == [3.75, 33.5]
        # also where coordinates are rounded
        for scale in np.random.RandomState(0).uniform(0.1, 10, (50, 2)):
            cut = 2 * scale[1]
            pieces = clip_polygon(polygon * scale, (-999, cut, 999, 999))
            areas = sorted(abs(area(p)) for p in pieces)
            np.testing.assert_allclose(areas, [3.75 * scale.prod(), 33.5 * scale.prod()])


@pytest.mark.parametrize("whole_numbers", [False, True])
def test_random_polygons(whole_numbers):
    """What is inside both is inside the result, for polygons that cross themselves as well.

    With whole numbers, many vertices and edges lie on the rectangle.
    """
    rng = np.random.RandomState(0)
    points = rng.uniform(4, 16, (300, 2))
    box = np.array([6, 7, 13, 14])
    inside_box = ((points > box[:2]) & (points < box[2:])).all(axis=1)
    several = 0
    for _ in range(300):
        polygon = rng.uniform(0, 20, (rng.randint(3, 10), 2))
        if whole_numbers:
            polygon = polygon.round()
        pieces = clip_polygon(polygon, box)
        expected = contains([polygon], points) & inside_box
        assert np.array_equal(contains(pieces, points), expected)
        several += len(pieces) > 1
        for piece in pieces:
            assert (piece >= box[:2]).all() and (piece <= box[2:]).all()
            assert len(piece) >= 3 and abs(area(piece)) > 0
    assert several > 50


def test_bounds_are_tight_for_simple_polygons():
    """No spikes along the rectangle are left over: all vertices bound some area."""
    rng = np.random.RandomState(0)
    box = (6, 7, 13, 14)
    for _ in range(300):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(1, 12, (9, 1))
        center = rng.uniform(0, 20, 2)
        polygon = (center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)).round()
        for piece in clip_polygon(polygon, box):
            x0, y0, x1, y1 = bounds(piece)
            # a little inside of each side of the bounds there is something
            slabs = [(x0, y0, x0 + 0.01, y1), (x1 - 0.01, y0, x1, y1)]
            slabs += [(x0, y0, x1, y0 + 0.01), (x0, y1 - 0.01, x1, y1)]
            for slab in slabs:
                assert clip_polygon(piece, slab)
