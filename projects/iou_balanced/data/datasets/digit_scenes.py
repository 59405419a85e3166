"""Drawing scenes with handwritten digits: no files here, arrays in and arrays out.

Letters: S side of the square image in pixels. Boxes are XYXY in absolute pixels.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["NUM_CLASSES", "PlacedDigit", "digit_sources", "draw_scene", "stroke_mask"]

NUM_CLASSES = 10
# Length of a digit's longer side as a fraction of S.
MIN_SIDE, MAX_SIDE = 0.14, 0.5
# Intersection over the smaller box; more than this hides too much of a digit.
MAX_OVERLAP = 0.1
# Opacity from which on a pixel belongs to the visible stroke, and so to the box.
VISIBLE = 0.5
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class PlacedDigit:
    """A digit in a scene."""

    label: int
    """Its class in [0, 10)."""
    box: tuple[int, int, int, int]
    """XYXY in whole pixels, tight around its strokes."""


def digit_sources(split: str) -> list[np.ndarray]:
    """The handwritten digits of a split: for each class (n, 8, 8) float32 in [0, 1].

    Within each class every fifth sample is for "val" and the others are for "train", so that no
    handwriting is in both.

    Args:
        split: "train" or "val".

    Raises:
        ValueError: another split.
        ImportError: scikit-learn is not installed.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', but got {split!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise ImportError(
            "the digits data set needs scikit-learn: pip install scikit-learn, or install this "
            "project with its [demo] extra"
        ) from e
    data = load_digits()
    sources = []
    for label in range(NUM_CLASSES):
        images = data.images[data.target == label].astype(np.float32) / 16.0
        is_val = np.arange(len(images)) % 5 == 4
        sources.append(images[is_val if split == "val" else ~is_val])
    return sources


def stroke_mask(source: np.ndarray, height: int, width: int) -> np.ndarray:
    """Opacity of a digit's strokes, about (height, width), float32 in [0, 1].

    Args:
        source: (8, 8) in [0, 1].
        height: of the digit in pixels. The result is a pixel or so off, because it is cut tight:
            each of its four sides touches a pixel with an opacity of VISIBLE or more.
        width: likewise.
    """
    ink = source >= 0.25 * source.max()
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cell = source[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A border of paper lets strokes at the edge end softly as all others do.
    cell = np.pad(cell / source.max(), 1)
    scale_y, scale_x = height / len(rows), width / len(columns)
    size = (max(round(cell.shape[1] * scale_x), 3), max(round(cell.shape[0] * scale_y), 3))
    grey = np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.BICUBIC))
    # 8 x 8 pixels scaled up are blurred: a steep ramp around half grey makes strokes of them.
    mask = np.clip((grey - 0.3) / 0.3, 0.0, 1.0)
    visible = mask >= VISIBLE
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_scene(
    rng: np.random.Generator, size: int, labels: list[int], sources: list[np.ndarray]
) -> tuple[np.ndarray, list[PlacedDigit]]:
    """Draw one scene.

    Args:
        rng: the scene depends on nothing else but the other arguments.
        size: S.
        labels: class of each digit; one that finds no free place is left out, the first never.
        sources: as from `digit_sources`.

    Returns:
        image (S, S, 3) uint8 RGB, and the digits in it.
    """
    canvas = _texture(rng, size)
    placed: list[PlacedDigit] = []
    for label in labels:
        source = sources[label][rng.integers(len(sources[label]))]
        for _ in range(20):  # a new size and place each time
            mask = stroke_mask(source, *_random_extent(rng, size, source))
            height, width = mask.shape
            x, y = rng.integers(size - width + 1), rng.integers(size - height + 1)
            box = (int(x), int(y), int(x) + width, int(y) + height)
            if all(_overlap(box, other.box) <= MAX_OVERLAP for other in placed):
                _paint(rng, canvas[box[1] : box[3], box[0] : box[2]], mask)
                placed.append(PlacedDigit(label, box))
                break

    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    noise = rng.normal(0.0, rng.uniform(0.0, 10.0), (size, size, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8), placed


def _random_extent(rng: np.random.Generator, size: int, source: np.ndarray) -> tuple[int, int]:
    """(height, width) in pixels: random longer side and, around the digit's own, random aspect."""
    ink = source >= 0.25 * source.max()
    aspect = ink.any(0).sum() / ink.any(1).sum() * np.exp(rng.uniform(-0.4, 0.4))
    longer = size * np.exp(rng.uniform(np.log(MIN_SIDE), np.log(MAX_SIDE)))
    height, width = (longer, longer * aspect) if aspect < 1 else (longer / aspect, longer)
    return max(round(height), 4), max(round(width), 4)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


def _paint(rng: np.random.Generator, patch: np.ndarray, mask: np.ndarray) -> None:
    """Paint a digit over `patch` (h, w, 3), in place, in a colour that stands out from it."""
    background = float((patch @ _LUMINANCE).mean())
    contrast = rng.uniform(60, 150)
    # towards the side that has the room for it, now and then towards the other one
    brighter = background + contrast <= 255 and (background < 128 or rng.random() < 0.3)
    target = max(background + (contrast if brighter else -contrast), 0.0)
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    colour += target - colour @ _LUMINANCE
    opacity = mask[..., None] * rng.uniform(0.85, 1.0)
    patch[:] = patch * (1 - opacity) + np.clip(colour, 0, 255) * opacity


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A background (S, S, 3) float32 in about 0..255: gradient, noise, stripes, stray strokes."""
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * xs + np.sin(angle) * ys)[..., None]
    canvas = rng.uniform(40, 215, 3) + ramp * rng.uniform(-80, 80, 3)
    for cells in (3, 6, 12, 24, 48):
        strength = rng.uniform(0, 28)
        grid = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        noise = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        canvas += strength * np.asarray(noise)[..., None] * rng.uniform(0.5, 1.0, 3)
    if rng.random() < 0.5:
        angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 16)
        phase = 2 * np.pi * (waves * (np.cos(angle) * xs + np.sin(angle) * ys) + rng.random())
        canvas += np.sin(phase)[..., None] * rng.uniform(-25, 25, 3)

    # Strokes that are no digits: without them every edge of stroke width would be an object.
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 5)):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        width = max(round(size * rng.uniform(0.01, 0.04)), 1)
        x, y = rng.uniform(0, size, 2)
        dx, dy = rng.uniform(0.1, 0.4, 2) * size
        if rng.random() < 0.5:
            draw.line((x, y, x + dx * rng.choice([-1, 1]), y + dy), colour, width)
        else:
            start = rng.uniform(0, 360)
            arc = rng.uniform(40, 140)
            draw.arc((x - dx / 2, y - dy / 2, x + dx, y + dy), start, start + arc, colour, width)
    return np.asarray(image).astype(np.float32)
