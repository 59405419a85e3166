import itertools

import detectron2.data.transforms as T
import numpy as np
import pytest

from iou_balanced.data import ColorJitter
from iou_balanced.data.transforms.color_jitter import ColorJitterTransform

PIXEL = np.array([[(200, 100, 40)]], dtype=np.uint8)  # grey: 59.8 + 58.7 + 4.56 = 123.06


def random_image(h=70, w=10):
    return np.random.RandomState(0).randint(0, 256, (h, w, 3)).astype(np.uint8)


def step_by_step(image, factors, lighting):
    """What the authors' code does with a BGR image in [0, 1], operation by operation."""
    image = image / 255
    grey = 0.114 * image[..., 0] + 0.587 * image[..., 1] + 0.299 * image[..., 2]
    mean = grey.mean()
    for step, a in factors.items():
        if step == "brightness":
            image = image * a
        elif step == "contrast":
            image = image * a + mean * (1 - a)
        else:
            image = image * a + grey[..., None] * (1 - a)
    variances = [0.2141788, 0.01817699, 0.00341571]
    components = [
        [-0.58752847, -0.5832747, -0.56089297],
        [-0.69563484, 0.00994535, 0.71832671],
        [0.41340352, -0.81221408, 0.41158938],
    ]
    for weight, variance, component in zip(lighting, variances, components, strict=True):
        image = image + weight * variance * np.array(component)
    return image * 255


@pytest.mark.parametrize(
    "order", [*itertools.permutations(("brightness", "contrast", "saturation"))]
)
def test_the_linear_map_is_that_of_the_steps(order):
    image = random_image()
    factors = dict(brightness=1.37, contrast=0.71, saturation=1.24)
    factors = {step: factors[step] for step in order}
    lighting = (0.13, -0.21, 0.08)
    expected = step_by_step(image.astype(float), factors, lighting)
    result = ColorJitterTransform(factors, lighting, image_format="BGR").apply_image(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-3)
    rgb = ColorJitterTransform(factors, lighting).apply_image(image[:, :, ::-1])
    np.testing.assert_allclose(rgb[:, :, ::-1], expected, atol=1e-3)
    floats = ColorJitterTransform(factors, lighting).apply_image(image[:, :, ::-1] / 1.0)
    np.testing.assert_allclose(floats, rgb, atol=1e-3)


def test_hand_worked_pixels():
    def apply(image=PIXEL, lighting=(0, 0, 0), **factors):
        return ColorJitterTransform(factors, lighting).apply_image(image)[0]

    np.testing.assert_allclose(apply(), [(200, 100, 40)])
    np.testing.assert_allclose(apply(brightness=0.5), [(100, 50, 20)])
    # halfway to 123.06
    np.testing.assert_allclose(apply(saturation=0.5), [(161.53, 111.53, 81.53)], rtol=1e-6)
    # with a black pixel beside it, halfway to 61.53
    two = np.concatenate([PIXEL, np.zeros_like(PIXEL)], axis=1)
    expected = [(130.765, 80.765, 50.765), (30.765, 30.765, 30.765)]
    np.testing.assert_allclose(apply(two, contrast=0.5), expected, rtol=1e-6)
    # 400 halfway to the grey of the first image, 123.06; not clipped
    expected = [(261.53, 161.53, 101.53)]
    np.testing.assert_allclose(apply(brightness=2, saturation=0.5), expected, rtol=1e-6)
    # the other way around, 2 * 161.53 ...
    expected = [(323.06, 223.06, 163.06)]
    np.testing.assert_allclose(apply(saturation=0.5, brightness=2), expected, rtol=1e-6)
    # 255 * 0.2141788 = 54.6156 times -0.56089, -0.58327, -0.58753
    expected = [(200 - 30.6335, 100 - 31.8559, 40 - 32.0882)]
    np.testing.assert_allclose(apply(lighting=(1, 0, 0)), expected, atol=1e-3)


def test_nothing_else_changes():
    image = random_image()
    before = image.copy()
    transform = ColorJitterTransform({"contrast": 1.3, "saturation": 0.7}, (0.1, 0.1, 0.1))
    transform.apply_image(image)
    assert np.array_equal(image, before)
    boxes = np.array([[1.0, 2, 3, 4]])
    assert transform.apply_box(boxes).tolist() == boxes.tolist()
    assert transform.apply_segmentation(image) is image
    assert isinstance(transform.inverse(), T.NoOpTransform)
    # black on a canvas of any size stays what lighting makes of it
    transform = ColorJitterTransform({"brightness": 1.2})
    assert not transform.apply_image(np.zeros((3, 4, 3), dtype=np.uint8)).any()


def test_distribution():
    np.random.seed(0)
    aug = ColorJitter(contrast=0.2, saturation=0)
    drawn = [aug.get_transform(PIXEL) for _ in range(3000)]
    orders = [tuple(t.factors) for t in drawn]
    assert len(set(orders)) == 6
    for order in set(orders):
        assert abs(orders.count(order) / 3000 - 1 / 6) < 0.025
    for name, half in (("brightness", 0.4), ("contrast", 0.2)):
        values = np.array([t.factors[name] for t in drawn])
        assert 1 - half <= values.min() < 1 - 0.98 * half
        assert 1 + 0.98 * half < values.max() <= 1 + half
        assert abs(values.mean() - 1) < 0.03 * half
        assert abs(values.std() - half / 3**0.5) < 0.03 * half
    assert {t.factors["saturation"] for t in drawn} == {1}
    lighting = np.array([t.lighting for t in drawn])
    assert lighting.shape == (3000, 3)
    assert np.abs(lighting.mean(axis=0)).max() < 0.008
    assert np.abs(lighting.std(axis=0) - 0.1).max() < 0.006
    assert {t.image_format for t in drawn} == {"RGB"}
    assert ColorJitter(image_format="BGR").get_transform(PIXEL).image_format == "BGR"


def test_numpys_seed_repeats_it():
    image = random_image()
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        aug_input = T.AugInput(image)
        transforms = T.AugmentationList([ColorJitter()])(aug_input)
        assert np.array_equal(transforms.apply_image(image), aug_input.image)
        results.append(aug_input.image)
    assert np.array_equal(*results[:2]) and not np.array_equal(*results[1:])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "lighting"])
def test_bad_numbers(name):
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"`{name}` to be >= 0, but got {value}"):
            ColorJitter(**{name: value})


def test_bad_images():
    with pytest.raises(ValueError, match="`image_format` to be 'RGB' or 'BGR', but got 'L'"):
        ColorJitter(image_format="L")
    with pytest.raises(ValueError, match=r"`img` to be \(H, W, 3\), but got \(4, 4, 1\)"):
        ColorJitterTransform({}).apply_image(np.zeros((4, 4, 1), dtype=np.uint8))
