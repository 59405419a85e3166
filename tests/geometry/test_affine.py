import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import OmegaConf

from iou_balanced.data import CenterFit, CenterPad, RandomCenterScale
from iou_balanced.geometry.affine import AffineCropTransform

IMAGE = np.zeros((480, 640, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


def random_image(h=37, w=53, channels=3):
    return np.random.RandomState(0).randint(0, 256, (h, w, channels)).astype(np.uint8)


def draw(image, number, **arguments):
    aug = RandomCenterScale(**arguments)
    return [aug.get_transform(image) for _ in range(number)]


def center_of(transform):
    x0, y0, x1, y1 = transform.src_rect
    return (x0 + x1) / 2, (y0 + y1) / 2


def extent(mask):
    """XYXY of the pixels that are set."""
    (y,), (x,) = (np.nonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1])


def test_points_by_hand(monkeypatch):
    """The three points that define the authors' affine map."""
    draws = iter([2, 300, 200])  # scale 0.8, center (300, 200)
    monkeypatch.setattr(np.random, "randint", lambda *arguments: next(draws))
    transform = RandomCenterScale().get_transform(IMAGE)
    # the window's side is 0.8 * 640 = 512, half of it 256
    points = np.array([(300.0, 200), (300, 200 - 256), (300 - 256, 200 - 256), (310, 190.5)])
    before = points.copy()
    expected = [[256, 256], [256, 0], [0, 0], [266, 246.5]]
    np.testing.assert_allclose(transform.apply_coords(points), expected, atol=1e-9)
    assert np.array_equal(points, before)
    # twice as far from the center with a window of half that
    transform = AffineCropTransform((172, 72, 428, 328), (512, 512), (480, 640))
    assert transform.apply_coords(points)[3].tolist() == [276, 237]
    assert transform.apply_coords(points.astype(np.float32)).dtype == np.float32
    assert transform.apply_coords(points.astype(np.int64)).dtype == np.float64
    # (172, 72) is the new origin: clipped to [0, 512]
    boxes = np.array([(182, 82, 192, 102), (0, 0, 202, 400), (500, 400, 600, 450)])
    assert transform.apply_box(boxes).tolist() == [
        [20, 20, 40, 60],
        [0, 0, 60, 512],
        [512, 512, 512, 512],
    ]


def test_pixels_by_hand():
    row = np.array([[0, 100]], dtype=np.uint8)
    # Centers lie at 1/4, 3/4, 5/4, 7/4 between those of the pixels, 1/2 and 3/2; beyond is black.
    transform = AffineCropTransform((0, 0, 2, 1), (1, 4), (1, 2))
    assert transform.apply_image(row).tolist() == [[0, 25, 75, 75]]
    assert transform.apply_image(row + 2.0).tolist() == [[1.5, 27, 77, 76.5]]
    assert transform.apply_segmentation(np.array([[-7, 2**40]])).tolist() == [
        [-7] * 2 + [2**40] * 2
    ]
    # half a pixel too far to the left, and one row above
    transform = AffineCropTransform((-0.5, -1, 3.5, 1), (2, 4), (1, 2), seg_pad_value=255)
    assert transform.apply_image(row).tolist() == [[0, 0, 0, 0], [0, 50, 50, 0]]
    labels = transform.apply_segmentation(np.array([[1, 2]], dtype=np.uint8))
    assert labels.tolist() == [[255] * 4, [1, 2, 255, 255]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(
    "window",
    [(-20.3, -9.1, 60.2, 71.4), (3.3, 5.6, 14.1, 9.9), (-300.0, -80, 200, 170), (60.0, 3, 70, 9)],
    ids=["larger", "inside", "many strips", "outside"],
)
def test_image_is_that_of_grid_sample(window, dtype):
    image = random_image().astype(dtype)
    h, w = 91, 80
    (x0, y0, x1, y1), (sy, sx) = window, image.shape[:2]
    # from -1 to 1 over the image; align_corners=False is the convention of pixels' centers
    x = 2 * (x0 + (torch.arange(w).double() + 0.5) * (x1 - x0) / w) / sx - 1
    y = 2 * (y0 + (torch.arange(h).double() + 0.5) * (y1 - y0) / h) / sy - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    planes = torch.from_numpy(image).double().permute(2, 0, 1)[None]
    expected = F.grid_sample(planes, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
    transform = AffineCropTransform(window, (h, w), (sy, sx))
    result = transform.apply_image(image)
    assert result.dtype == dtype and result.shape == (h, w, 3)
    assert expected.any() == (window[0] < sx)
    np.testing.assert_allclose(result, expected, atol=0.5001 if dtype == np.uint8 else 1e-4)
    assert np.array_equal(transform.apply_image(image[..., 0]), result[..., 0])
    assert np.array_equal(transform.apply_image(image[:, :, :1]), result[:, :, :1])
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]  # the same with negative strides
    assert np.array_equal(transform.apply_image(mirrored), result)


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_boxes_follow_the_painted_rectangles(size):
    boxes = [(3, 4, 23, 16), (30, 0, 60, 20), (10, 20, 25, 40)]
    seen = 0
    for transform in draw(np.zeros((40, 60)), 40, size=size, border=16):
        for box in boxes:
            x0, y0, x1, y1 = box
            mask = np.zeros((40, 60), dtype=np.uint8)
            mask[y0:y1, x0:x1] = 1
            (moved,) = transform.apply_box(np.array([box], dtype=np.float64))
            labels = transform.apply_segmentation(mask)
            polygon = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)
            polygons = transform.apply_polygons([polygon])
            if (moved[2:] - moved[:2]).min() < 1:  # may cover no pixel's center
                assert labels.sum() <= max(size)
                continue
            seen += 1
            # a pixel shows what is at its center: half a pixel more or less
            assert np.abs(moved - extent(labels)).max() <= 0.5 + 1e-9
            painted = transform.apply_image(255.0 * mask) >= 127.5 - 1e-6
            assert np.abs(moved - extent(painted)).max() <= 0.5 + 1e-9
            (polygon,) = polygons
            tight = [*polygon.min(axis=0), *polygon.max(axis=0)]
            np.testing.assert_allclose(tight, moved, atol=1e-9)
    assert seen > 60


def test_inverse():
    transform = AffineCropTransform((-20.5, 3.25, 80, 60), (91, 80), (37, 53), seg_pad_value=9)
    back = transform.inverse()
    points = np.random.uniform(-100, 100, (20, 2))
    np.testing.assert_allclose(back.apply_coords(transform.apply_coords(points)), points)
    again = back.inverse()
    np.testing.assert_allclose(again.src_rect, transform.src_rect)
    assert (again.output_size, again.orig_size) == ((91, 80), (37, 53))
    box = np.array([(4.0, 10, 50, 37)])
    np.testing.assert_allclose(back.apply_box(transform.apply_box(box)), box)
    assert back.apply_image(np.ones((91, 80))).shape == (37, 53)
    labels = back.apply_segmentation(np.ones((91, 80), dtype=np.uint8))
    # The window starts at y = 3.25: pixels with their center above are not in it.
    assert (labels[:3] == 9).all() and (labels[3:] == 1).all()


def test_scales_and_centers():
    drawn = draw(IMAGE, 4000)
    sides = np.array(
        [(t.src_rect[2] - t.src_rect[0], t.src_rect[3] - t.src_rect[1]) for t in drawn]
    )
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    scales, counts = np.unique((sides[:, 0] / 640).round(6), return_counts=True)
    assert scales.tolist() == [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
    assert np.abs(counts / 4000 - 1 / 8).max() < 0.02
    centers = np.array([center_of(t) for t in drawn])
    np.testing.assert_allclose(centers, centers.round())
    for values, side in ((centers[:, 0], 640), (centers[:, 1], 480)):
        assert 128 <= values.min() < 131 and side - 131 <= values.max() <= side - 129
        assert abs(values.mean() - (side - 1) / 2) < 0.02 * side
    assert abs(np.corrcoef(centers.T)[0, 1]) < 0.06
    assert all(t.output_size == (512, 512) and t.orig_size == (480, 640) for t in drawn)
    # the longer side counts, whichever it is
    (t,) = draw(IMAGE.transpose(1, 0, 2), 1, scales=[1.0])
    assert t.src_rect[2] - t.src_rect[0] == t.src_rect[3] - t.src_rect[1] == 640
    # one that is not square: 480 pixels fit into 128 and 640 into 256 at once with 128 / 480
    (t,) = draw(IMAGE, 1, scales=[1.0], size=(128, 256))
    assert (t.src_rect[2] - t.src_rect[0], t.src_rect[3] - t.src_rect[1]) == (960, 480)


@pytest.mark.parametrize(
    ("side", "low", "high"),
    # 257 - 128 > 128; 256 - 128 is not, but 256 - 64 > 64; 100 - 64 is not > 64, but 100 - 32 > 32
    [(257, 128, 128), (256, 64, 191), (100, 32, 67), (3, 1, 1), (2, 0, 1), (1, 0, 0)],
)
def test_border_of_small_images(side, low, high):
    centers = [center_of(t) for t in draw(np.zeros((side, 500)), 2000, size=(8, 8))]
    drawn = np.unique(np.round([y for _, y in centers], 6))
    assert drawn.tolist() == list(range(low, high + 1))


def test_numpys_seed_repeats_it():
    image = random_image()
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        aug_input = T.AugInput(image)
        transforms = T.AugmentationList([RandomCenterScale(size=(32, 32), border=16)])(aug_input)
        assert np.array_equal(transforms.apply_image(image), aug_input.image)
        results.append(aug_input.image)
    assert np.array_equal(*results[:2]) and not np.array_equal(*results[1:])


def test_fit_by_hand():
    # 640 x 480 times 0.8: 512 x 384, with (512 - 384) / 2 = 64 above
    transform = CenterFit().get_transform(IMAGE + 255)
    points = np.array([(0.0, 0), (640, 480), (320, 240)])
    np.testing.assert_allclose(transform.apply_coords(points), [[0, 64], [512, 448], [256, 256]])
    canvas = transform.apply_image(IMAGE + 255)
    assert canvas.shape == (512, 512, 3)
    assert (canvas[65:447, 1:511] == 255).all() and not canvas[:63].any() and not canvas[449:].any()
    # small images grow: 10 x 40 pixels (width, height) become 16 x 64, from 8 to 24
    transform = CenterFit(size=(64, 32)).transform_for(40, 10)
    assert transform.apply_box(np.array([(0.0, 0, 10, 40)])).tolist() == [[8, 0, 24, 64]]
    # no whole pixels: 427 * 0.8 = 341.6, with 85.2 above
    transform = CenterFit().transform_for(427, 640)
    np.testing.assert_allclose(transform.apply_coords(np.zeros((1, 2))), [[0, 85.2]])


def test_pad_by_hand():
    assert CenterPad().transform_for(480, 640).output_size == (512, 672)
    image = random_image(427, 641)
    transform = CenterPad().get_transform(image)
    canvas = transform.apply_image(image)
    # 448 // 2 - 427 // 2 = 224 - 213 above, 336 - 320 on the left
    assert canvas.shape == (448, 672, 3)
    assert np.array_equal(canvas[11 : 11 + 427, 16 : 16 + 641], image)
    assert canvas.sum() == image.sum()
    assert np.array_equal(transform.inverse().apply_image(canvas), image)
    assert transform.apply_coords(np.zeros((1, 2))).tolist() == [[16, 11]]


def test_pad_is_the_next_multiple():
    for side in range(1, 140):
        transform = CenterPad().transform_for(side, 7)
        assert transform.output_size == ((side | 31) + 1, 32) and transform.scale == (1, 1)
        # the authors' map takes the center, rounded down, to the canvas's
        (_, y), _ = transform.apply_coords(np.array([(0, side // 2), (0, 0)]))
        assert y == transform.output_size[0] / 2
    assert CenterPad(divisor=128).transform_for(100, 128).output_size == (128, 256)


@pytest.mark.parametrize(
    "canvas", [CenterFit(size=(128, 128)), CenterFit(size=(64, 96)), CenterPad()]
)
@pytest.mark.parametrize(("height", "width"), [(427, 641), (333, 500), (90, 31)])
def test_detections_come_back(canvas, height, width):
    corners = np.sort(np.random.uniform(0, 1, (30, 2, 2)), axis=1) * (width, height)
    boxes = corners.reshape(30, 4)
    transform = canvas.transform_for(height, width)
    h, w = transform.output_size
    on_canvas = torch.from_numpy(transform.apply_box(boxes)).float()
    # 30 lies in a corner and shares nothing with the image; 31 is the whole canvas
    on_canvas = torch.cat([on_canvas, torch.tensor([[-5.0, -5, -1, -1], [-9, -9, w + 9, h + 9]])])
    results = Instances((h, w), pred_boxes=Boxes(on_canvas.clone()), scores=torch.arange(32))
    restored = canvas.postprocess(results, height, width)
    assert restored.image_size == (height, width)
    assert restored.scores.tolist() == [*range(30), 31]
    expected = np.concatenate([boxes, [(0, 0, width, height)]])
    np.testing.assert_allclose(restored.pred_boxes.tensor.numpy(), expected, atol=1e-3)
    # what came is as it was
    assert results.image_size == (h, w) and torch.equal(results.pred_boxes.tensor, on_canvas)
    assert len(canvas.postprocess(results[:0], height, width)) == 0


def test_lazy_config():
    for call in (L(RandomCenterScale)(size=[8, 16]), L(CenterFit)(size=[8, 16])):
        aug = instantiate(OmegaConf.create(call))
        assert aug.size == (8, 16) and "size=(8, 16)" in repr(aug)
        assert aug(T.AugInput(IMAGE)).apply_image(IMAGE).shape == (8, 16, 3)
    assert "divisor=64" in repr(instantiate(L(CenterPad)(divisor=64)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCenterScale(size=(0, 5)), r"`size` to be a .*, but got \(0, 5\)"),
        (lambda: CenterFit(size=(5,)), r"`size` to be a \(height, width\) > 0, but got \(5,\)"),
        (lambda: RandomCenterScale(scales=[0, 1]), r"`scales` to be positive, but got \(0, 1\)"),
        (lambda: RandomCenterScale(scales=[]), r"`scales` to be positive, but got \(\)"),
        (lambda: RandomCenterScale(border=-1), "`border` to be >= 0, but got -1"),
        (lambda: CenterPad(divisor=31), "`divisor` to be a positive even number, but got 31"),
        (lambda: CenterPad(divisor=0), "`divisor` to be a positive even number, but got 0"),
        (
            lambda: CenterPad().transform_for(480, 640).apply_image(IMAGE[:9]),
            r"`img` to be an image of \(480, 640\) \(height, width\), but got \(9, 640\)",
        ),
        (
            lambda: CenterFit().postprocess(Instances((800, 1067)), 480, 640),
            r"of \(512, 512\) .*, which CenterFit\(\) makes .* \(480, 640\), but got \(800, 1067\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
