import detectron2.data.transforms as T
import numpy as np
import pytest

from iou_balanced.data import MinIoURandomCrop, RandomExpand
from iou_balanced.data.transforms.augmentations import (
    ExpandTransform,
    KeepCentersCropTransform,
    transform_boxes,
)

IMAGE = np.zeros((40, 60, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


def boxes_of(*boxes):
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def choose(monkeypatch, *modes):
    """Let MinIoURandomCrop draw these modes, 0 being to keep the image, then fail."""
    draws = iter(modes)
    monkeypatch.setattr(np.random, "randint", lambda n: next(draws))


def test_expand_by_hand():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    transform = ExpandTransform(1, 2, 3, 0, 3, 2, pad_value=(9.4, 8.5, 7.6), seg_pad_value=255)
    canvas = transform.apply_image(image)
    assert canvas.shape == (4, 7, 3) and canvas.dtype == np.uint8
    assert np.array_equal(canvas[2:4, 1:4], image)
    canvas[2:4, 1:4] = (9, 8, 8)  # rounded
    assert (canvas == (9, 8, 8)).all()
    assert transform.apply_image(image.astype(np.float32))[0, 0].tolist() == pytest.approx(
        [9.4, 8.5, 7.6]
    )
    segmentation = transform.apply_segmentation(np.ones((2, 3), dtype=np.uint8))
    assert segmentation.shape == (4, 7)
    assert (segmentation[2:4, 1:4] == 1).all() and (segmentation == 255).sum() == 4 * 7 - 6
    assert transform.apply_box(boxes_of((0, 0, 3, 2))).tolist() == [[1, 2, 4, 4]]
    back = transform.inverse()
    assert np.array_equal(back.apply_image(transform.apply_image(image)), image)
    assert back.apply_box(boxes_of((1, 2, 4, 4))).tolist() == [[0, 0, 3, 2]]


def test_expand_distribution():
    aug = RandomExpand(max_ratio=3, prob=0.7)
    drawn = [aug.get_transform(IMAGE) for _ in range(3000)]
    done = [t for t in drawn if isinstance(t, ExpandTransform)]
    assert abs(len(done) / 3000 - 0.7) < 0.03
    assert all(isinstance(t, T.NoOpTransform) for t in drawn if t not in done)
    ratios = np.array([((t.y0 + 40 + t.y1) / 40, (t.x0 + 60 + t.x1) / 60) for t in done])
    assert np.abs(ratios[:, 0] - ratios[:, 1]).max() <= 1 / 40  # both rounded down
    for ratio in ratios.T:
        assert 1 <= ratio.min() < 1.05 and 2.9 < ratio.max() <= 3
        assert abs(ratio.mean() - 2) < 0.05
    for start, end in ((t.x0, t.x1) for t in done):
        assert start >= 0 and end >= 0
    place = np.array([t.x0 / (t.x0 + t.x1) for t in done if t.x0 + t.x1 > 10])
    assert place.min() == 0 and place.max() == 1 and abs(place.mean() - 0.5) < 0.03
    place = np.array([t.y0 / (t.y0 + t.y1) for t in done if t.y0 + t.y1 > 10])
    assert place.min() == 0 and place.max() == 1 and abs(place.mean() - 0.5) < 0.03


def test_expand_never_and_by_nothing():
    aug = RandomExpand(prob=0)
    assert all(isinstance(aug.get_transform(IMAGE), T.NoOpTransform) for _ in range(50))
    transform = RandomExpand(prob=1, max_ratio=1).get_transform(IMAGE)
    assert transform.apply_image(IMAGE).shape == IMAGE.shape


def test_grey_images_are_expanded():
    grey = RandomExpand(prob=1, fill=[7]).get_transform(IMAGE[:, :, :1])
    assert set(np.unique(grey.apply_image(IMAGE[:, :, :1]))) == {0, 7}
    assert set(np.unique(grey.apply_image(IMAGE[:, :, 0]))) == {0, 7}


def test_crop_by_hand():
    image = np.arange(5 * 6).reshape(5, 6)
    transform = KeepCentersCropTransform(2, 1, 3, 4, orig_w=6, orig_h=5)
    assert np.array_equal(transform.apply_image(image), image[1:5, 2:5])
    boxes = boxes_of((2, 1, 5, 5), (3, 2, 9, 9), (0, 0, 4, 4), (4, 0, 6, 6))
    # clipped to the crop; centers (3.5, 3) (6, 5.5) (2, 2) (5, 3): the last two on its border
    assert transform.apply_box(boxes).tolist() == [
        [0, 0, 3, 4],
        [1, 1, 3, 4],
        [0, 0, 2, 3],
        [2, 0, 3, 4],
    ]
    assert transform.contains_centers(boxes).tolist() == [True, False, False, False]
    assert transform.contains_centers(boxes_of()).shape == (0,)
    (polygon,) = transform.apply_polygons([np.array([(0.0, 0), (4, 0), (4, 4), (0, 4)])])
    assert sorted(map(tuple, polygon.tolist())) == [(0, 0), (0, 3), (2, 0), (2, 3)]
    back = transform.inverse()
    assert back.apply_image(transform.apply_image(image)).shape == image.shape
    assert back.apply_box(boxes_of((0, 0, 3, 4))).tolist() == [[2, 1, 5, 5]]


def test_transform_boxes_removes_at_each_crop():
    boxes = boxes_of((0, 0, 4, 4), (10, 10, 20, 20), (12, 12, 14, 14), (9, 9, 13, 13))
    before = boxes.copy()
    transform = T.TransformList(
        [
            KeepCentersCropTransform(10, 10, 30, 20, 60, 40),  # drops 0
            T.HFlipTransform(30),
            # drops 2, at x = 26..28 now; of 1, x = 20..30, and 3, x = 27..30, keeps the left side
            KeepCentersCropTransform(0, 0, 26, 20, 30, 20),
        ]
    )
    moved, kept = transform_boxes(transform, boxes)
    assert kept.tolist() == [1] and moved.tolist() == [[20, 0, 26, 10]]
    # 3 was clipped to (10, 10, 13, 13) before its center was looked at a second time
    moved, kept = transform_boxes(transform[0], boxes)
    assert kept.tolist() == [1, 2, 3] and moved[2].tolist() == [0, 0, 3, 3]
    moved, kept = transform_boxes(transform, boxes_of())
    assert moved.shape == (0, 4) and kept.shape == (0,)
    assert np.array_equal(boxes, before)


def test_the_iou_with_each_box_counts(monkeypatch):
    # with the crop (0, 0, 10, 10): 50 / 100 and 50 / (100 + 100 - 50) = 1 / 3
    boxes = boxes_of((0, 0, 10, 5), (5, 0, 15, 10))
    for min_iou, cropped in ((0.333, True), (0.334, False)):
        aug = MinIoURandomCrop(min_ious=[min_iou])
        aug._random_crops = lambda h, w: np.array([[0, 0, 10, 10]])
        choose(monkeypatch, 1, 0)
        transform = aug.get_transform(IMAGE, boxes)
        assert isinstance(transform, KeepCentersCropTransform) == cropped
    assert isinstance(transform, T.NoOpTransform)


def test_a_crop_needs_one_center_strictly_inside(monkeypatch):
    aug = MinIoURandomCrop(min_ious=[])
    aug._random_crops = lambda h, w: np.array([[0, 0, 10, 10], [2, 2, 13, 13]])
    for box, crop in (
        ((8, 0, 11, 10), (0, 0, 10, 10)),  # center (9.5, 5)
        ((8, 0, 12, 10), (2, 2, 11, 11)),  # (10, 5) is on the first one's border
        ((0, 0, 4, 3), (0, 0, 10, 10)),
    ):
        choose(monkeypatch, 1)
        transform = aug.get_transform(IMAGE, boxes_of(box))
        assert (transform.x0, transform.y0, transform.w, transform.h) == crop
    # no crop has one: another mode is drawn
    choose(monkeypatch, 1, 1, 0)
    assert isinstance(aug.get_transform(IMAGE, boxes_of((40, 0, 60, 9))), T.NoOpTransform)
    # a box whose center is outside may be there as long as another's is inside
    choose(monkeypatch, 1)
    aug.get_transform(IMAGE, boxes_of((40, 0, 60, 9), (0, 0, 4, 3)))


@pytest.mark.parametrize("min_iou", [0.1, 0.5, 0.9])
def test_random_crops_keep_the_criterion(min_iou, monkeypatch):
    # with one another 0.92, so that there are crops for both
    boxes = boxes_of((3, 2, 59, 39), (2, 1, 58, 39))
    aug = MinIoURandomCrop(min_ious=(min_iou,), min_crop_size=0.4)
    monkeypatch.setattr(np.random, "randint", lambda n: 1)
    smallest = 1
    for _ in range(200):
        t = aug.get_transform(IMAGE, boxes)
        assert min(t.x0, t.y0) >= 0 and t.x0 + t.w <= 60 and t.y0 + t.h <= 40
        assert (t.orig_w, t.orig_h) == (60, 40)
        for x0, y0, x1, y1 in boxes.tolist():
            width = min(x1, t.x0 + t.w) - max(x0, t.x0)
            height = min(y1, t.y0 + t.h) - max(y0, t.y0)
            iou = width * height / (t.w * t.h + (x1 - x0) * (y1 - y0) - width * height)
            assert iou >= min_iou
            smallest = min(smallest, iou)
    # it is no stricter than that
    assert smallest < min_iou + 0.2


def test_sizes_and_places_of_crops(monkeypatch):
    monkeypatch.setattr(np.random, "randint", lambda n: 1)
    crops = [MinIoURandomCrop().get_transform(IMAGE, boxes_of()) for _ in range(2000)]
    h, w = (np.array([getattr(t, name) for t in crops]) for name in "hw")
    # whole pixels, the ends rounded down: sizes are up to a pixel off
    assert 12 - 1 <= h.min() <= 13 and 18 - 1 <= w.min() <= 20
    assert h.max() >= 39 and w.max() >= 57
    assert (h + 1 >= (w - 1) / 2).all() and (w + 1 >= (h - 1) / 2).all()
    assert (h < 0.6 * w).any() and (h > 1.5 * w).any()
    for start, size, side in (("x0", w, 60), ("y0", h, 40)):
        place = np.array([getattr(t, start) for t in crops])
        assert place.min() == 0 and (place + size).max() == side - 1
        free = side - 1 - size
        assert abs(np.mean(place[free > 5] / free[free > 5]) - 0.5) < 0.03


def test_all_modes_are_equally_probable():
    # without boxes each mode but "keep" crops
    aug = MinIoURandomCrop()
    drawn = [aug.get_transform(IMAGE, boxes_of()) for _ in range(3000)]
    kept = np.mean([isinstance(t, T.NoOpTransform) for t in drawn])
    assert abs(kept - 1 / 7) < 0.02
    # of a tiny box no crop has an IoU of 0.1, and only the last mode crops
    tiny = boxes_of((30, 20, 31, 21))
    kept = np.mean(
        [isinstance(aug.get_transform(IMAGE, tiny), T.NoOpTransform) for _ in range(600)]
    )
    assert abs(kept - 1 / 2) < 0.06
    # with a large min_crop_size the whole image always has 0.1 of a box of half of it
    aug = MinIoURandomCrop(min_ious=(0.1, 0.2), min_crop_size=0.9)
    half = boxes_of((15, 0, 45, 40))
    kept = np.mean(
        [isinstance(aug.get_transform(IMAGE, half), T.NoOpTransform) for _ in range(1500)]
    )
    assert abs(kept - 1 / 4) < 0.035


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomExpand(max_ratio=0.5), "`max_ratio` to be >= 1, but got 0.5"),
        (lambda: RandomExpand(prob=2), r"`prob` to be in \[0, 1\], but got 2"),
        (lambda: MinIoURandomCrop(min_ious=(0.1, 3)), r"`min_ious` to be .*, but got \(0.1, 3\)"),
        (lambda: MinIoURandomCrop(min_crop_size=0), r"`min_crop_size` to be .*, but got 0"),
        (
            lambda: RandomExpand(prob=0, fill=(1,)).get_transform(IMAGE),
            r"`fill` to have one value for each of the image's 3 channels, but got \(1,\)",
        ),
        (
            lambda: MinIoURandomCrop()(T.AugInput(IMAGE)),
            "`boxes` to be an array .* MinIoURandomCrop needs BoxAwareDatasetMapper",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_repr_names_what_is_not_default():
    assert repr(RandomExpand()).startswith("RandomExpand(")
    assert "max_ratio=2" in repr(RandomExpand(max_ratio=2))
    assert "min_ious=(0.5,)" in repr(MinIoURandomCrop(min_ious=[0.5]))
