import colorsys

import detectron2.data.transforms as T
import numpy as np
import pytest

from iou_balanced.data import PhotometricDistortion
from iou_balanced.data.transforms.photometric import PhotometricTransform


def pixels(*rgb, dtype=np.uint8):
    return np.array([rgb], dtype=dtype)  # (1, N, 3)


def by_colorsys(image, *, hue, saturation):
    """The same in Python's own HSV, pixel by pixel."""
    flat = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in image.reshape(-1, 3).astype(float)]
    flat = [colorsys.hsv_to_rgb((h + hue / 360) % 1, s * saturation, v) for h, s, v in flat]
    return 255 * np.array(flat).reshape(image.shape)


def random_image(dtype):
    image = np.random.RandomState(0).randint(0, 256, (70, 10, 3))
    # grey, black, white, and colors with two equal channels: the borders of HSV's six sectors
    image[0, :6] = [[90, 90, 90], [0, 0, 0], [255, 255, 255], [9, 9, 5], [9, 5, 9], [5, 9, 9]]
    image[1, :6] = [[9, 5, 5], [5, 9, 5], [5, 5, 9], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    return image.astype(dtype)


@pytest.mark.parametrize(("hue", "saturation"), [(0, 0.5), (0, 1.5), (18, 1), (-18, 1), (-17, 0.6)])
def test_hue_and_saturation_are_those_of_colorsys(hue, saturation):
    image = random_image(np.float64)
    transform = PhotometricTransform(hue=hue, saturation=saturation)
    expected = by_colorsys(image, hue=hue, saturation=saturation)
    np.testing.assert_allclose(transform.apply_image(image), expected, atol=1e-3)


@pytest.mark.parametrize("hue", [60, 120, -120, 359])
def test_hue_goes_around_the_circle(hue):
    image = random_image(np.float64)
    expected = by_colorsys(image, hue=hue, saturation=1)
    np.testing.assert_allclose(
        PhotometricTransform(hue=hue).apply_image(image), expected, atol=2e-3
    )


def test_hand_worked_pixels():
    image = pixels((200, 100, 40))

    def apply(**arguments):
        return PhotometricTransform(**arguments).apply_image(image).tolist()

    assert apply(brightness=30.4) == [[[230, 130, 70]]]
    assert apply(brightness=30.6) == [[[231, 131, 71]]]
    assert apply(brightness=-60) == [[[140, 40, 0]]]
    assert apply(contrast=1.5) == [[[255, 150, 60]]]
    # halfway to the largest channel: 200 - (200 - 100) / 2, 200 - (200 - 40) / 2
    assert apply(saturation=0.5) == [[[200, 150, 120]]]
    # hue 60 * (100 - 40) / (200 - 40) = 22.5 degrees -> 40.5; green = 40 + 160 * 40.5 / 60 = 148
    assert apply(hue=18) == [[[200, 148, 40]]]
    assert apply(channels=(2, 0, 1)) == [[[40, 200, 100]]]
    assert apply(contrast=0.5, saturation=0.5) == [[[100, 75, 60]]]
    # brightness comes first: (200 + 20) / 2
    assert apply(brightness=20, contrast=0.5) == [[[110, 60, 30]]]


def test_nothing_is_clipped_before_the_end():
    image = pixels((200, 100, 40))
    # 300, 150, 60 -> halfway to 300: 300, 225, 180
    transform = PhotometricTransform(contrast=1.5, saturation=0.5)
    assert transform.apply_image(image).tolist() == [[[255, 225, 180]]]
    image = image.astype(np.float32)
    assert transform.apply_image(image).tolist() == [[[300, 225, 180]]]
    assert PhotometricTransform(brightness=-50).apply_image(image).tolist() == [[[150, 50, -10]]]


def test_contrast_may_come_before_or_after_hue_and_saturation():
    """MMDetection draws which; that is the same thing, so here is no coin for it."""
    image = random_image(np.float32)
    contrast = PhotometricTransform(contrast=1.4)
    colors = PhotometricTransform(hue=11, saturation=0.8)
    first = colors.apply_image(contrast.apply_image(image))
    last = contrast.apply_image(colors.apply_image(image))
    np.testing.assert_allclose(first, last, atol=1e-3)
    at_once = PhotometricTransform(contrast=1.4, hue=11, saturation=0.8).apply_image(image)
    np.testing.assert_allclose(first, at_once, atol=1e-3)


def test_negative_pixels_stay_continuous():
    """Brightness can make a whole pixel negative, where HSV's S = C / V changes its sign."""
    image = pixels((-10, -20, -30), dtype=np.float32)
    transform = PhotometricTransform(saturation=0.5)
    np.testing.assert_allclose(transform.apply_image(image), [[[-10, -15, -20]]], atol=1e-4)
    # with the hue, the same; 0.001 degrees are 10 * 0.001 / 60 * 2 at most
    transform = PhotometricTransform(saturation=0.5, hue=0.001)
    np.testing.assert_allclose(transform.apply_image(image), [[[-10, -15, -20]]], atol=1e-3)


def test_bgr_is_rgb_turned_around():
    image = random_image(np.uint8)
    arguments = {"brightness": 5, "contrast": 1.1, "saturation": 1.3, "hue": 18}
    rgb = PhotometricTransform(**arguments).apply_image(image)
    bgr = PhotometricTransform(**arguments, image_format="BGR").apply_image(image[:, :, ::-1])
    assert np.array_equal(rgb, bgr[:, :, ::-1])
    assert not np.array_equal(rgb, PhotometricTransform(**arguments).apply_image(image[:, :, ::-1]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_dtype_stays_and_the_input_is_not_touched(dtype):
    image = random_image(dtype)[:, ::-1]  # as RandomFlip leaves it
    before = image.copy()
    transform = PhotometricTransform(brightness=9.3, contrast=1.2, saturation=1.2, hue=7)
    first, second = transform.apply_image(image), transform.apply_image(image)
    assert first.dtype == dtype and first.shape == image.shape
    assert np.array_equal(first, second) and np.array_equal(image, before)
    assert not np.array_equal(first, image)


def test_only_colors_change():
    transform = PhotometricTransform(hue=18)
    coords = np.array([[1.5, 2.0]])
    assert transform.apply_coords(coords).tolist() == [[1.5, 2.0]]
    assert transform.apply_box(np.array([[1.0, 2, 3, 4]])).tolist() == [[1, 2, 3, 4]]
    segmentation = np.arange(6).reshape(2, 3)
    assert transform.apply_segmentation(segmentation) is segmentation
    assert isinstance(transform.inverse(), T.NoOpTransform)


def test_distribution():
    np.random.seed(0)
    aug = PhotometricDistortion(hue_delta=9)
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    drawn = [aug.get_transform(image) for _ in range(4000)]
    nothing = [t for t in drawn if isinstance(t, T.NoOpTransform)]
    # five coins: 1 / 32, give or take three standard deviations
    assert abs(len(nothing) / 4000 - 1 / 32) < 3 * (1 / 32 / 4000) ** 0.5
    drawn = [t for t in drawn if not isinstance(t, T.NoOpTransform)]
    values = {
        "brightness": (0.0, (-32, 32)),
        "contrast": (1.0, (0.5, 1.5)),
        "saturation": (1.0, (0.5, 1.5)),
        "hue": (0.0, (-9, 9)),
    }
    for name, (neutral, (low, high)) in values.items():
        used = np.array([v for v in (getattr(t, name) for t in drawn) if v != neutral])
        assert abs(len(used) / 4000 - 0.5) < 0.03
        assert low <= used.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < used.max() <= high
        assert abs(used.mean() - (low + high) / 2) < 0.02 * (high - low)
    # a swap may be the identity: 1/2 + 1/2 * 1/6 of all draws, the 1/32 of nothing not among these
    orders = [t.channels for t in drawn]
    assert len(set(orders)) == 6
    assert abs((orders.count((0, 1, 2)) + len(nothing)) / 4000 - 7 / 12) < 0.03
    assert abs(orders.count((2, 0, 1)) / 4000 - 1 / 12) < 0.015


def test_numpys_seed_repeats_it():
    image = random_image(np.uint8)
    results = []
    for _ in range(2):
        np.random.seed(3)
        aug_input = T.AugInput(image)
        transforms = T.AugmentationList([PhotometricDistortion()] * 3)(aug_input)
        # the transforms alone give the image again
        assert np.array_equal(transforms.apply_image(image), aug_input.image)
        results.append(aug_input.image)
    assert np.array_equal(*results) and not np.array_equal(results[0], image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness_delta": -1}, "`brightness_delta` to be >= 0, but got -1"),
        ({"hue_delta": -1}, "`hue_delta` to be >= 0, but got -1"),
        ({"contrast_range": (2, 1)}, r"`contrast_range` to be 0 <= low <= high, but got \(2, 1\)"),
        ({"saturation_range": (1,)}, r"`saturation_range` to be .*, but got \(1,\)"),
        ({"image_format": "L"}, "`image_format` to be 'RGB' or 'BGR', but got 'L'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PhotometricDistortion(**arguments)


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"`img` to be \(H, W, 3\), but got \(4, 4, 1\)"):
        PhotometricTransform(hue=3).apply_image(np.zeros((4, 4, 1), dtype=np.uint8))
