"""Whether an exported detector finds what PyTorch's does."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances, pairwise_iou
from PIL import Image
from torch import nn

from iou_balanced.engine import UserError
from iou_balanced.inference.predictor import Predictor
from iou_balanced.modeling import CenterNet

MAX_PIXELS = 1e-2
MAX_SCORE = 1e-4
NUM_IMAGES = 20


class Comparison(NamedTuple):
    """What a check found."""

    num_images: int
    num_detections: int
    max_pixels: float
    """The largest difference of a box's side, in pixels of the image."""
    max_score: float
    num_undecided: int
    """Detections of one side alone, where rounding decides; see `Limits`."""


def compare(
    expected: Predictor, found: Predictor, images: Sequence[np.ndarray | str | Path]
) -> Comparison:
    """Run both on the images, and compare what they find.

    The exported one gets each image as the second of two, where it takes several at once. Each
    makes the images ready by itself.

    Raises:
        UserError: a detection of one has no counterpart in the other, within `MAX_PIXELS` and
            `MAX_SCORE`, and it is not rounding that decides (`Limits`); names the image and the
            detection.
    """
    count, pixels, score, undecided = 0, 0.0, 0.0, 0
    limits = Limits.of(expected.model)
    for i, image in enumerate(images):
        name = f"image {i}" if isinstance(image, np.ndarray) else f"image {image}"
        own, other = expected.prepare(image), found.prepare(image)
        a = expected.run([own])[0]["instances"]
        b = found.run([other, other])[1]["instances"]
        scale = max(x / y for x, y in zip(a.image_size, own["image"].shape[1:], strict=True))
        pairs = match(a, b)
        undecided += _check_rest(a, b, pairs, limits, scale, name)
        count += len(pairs)
        for j, k in pairs:
            difference = (a.pred_boxes.tensor[j] - b.pred_boxes.tensor[k]).abs().max().item()
            pixels = max(pixels, difference)
            score = max(score, abs((a.scores[j] - b.scores[k]).item()))
    return Comparison(len(images), count, pixels, score, undecided)


def match(a: Instances, b: Instances) -> list[tuple[int, int]]:
    """Pairs of the same class, with boxes and scores within the limits, each detection in one."""
    distance = (a.pred_boxes.tensor[:, None] - b.pred_boxes.tensor).abs().amax(dim=2)
    fits = (distance <= MAX_PIXELS) & (a.pred_classes[:, None] == b.pred_classes)
    fits &= (a.scores[:, None] - b.scores).abs() <= MAX_SCORE
    pairs, free = [], torch.ones(len(b), dtype=torch.bool)
    for i in range(len(a)):
        row = torch.where(fits[i] & free, distance[i], torch.inf)
        if len(row) and row.min() < torch.inf:
            k = int(row.argmin())
            pairs.append((i, k))
            free[k] = False
    return pairs


class Limits(NamedTuple):
    """Where rounding decides over a detection: at these numbers nobody is wrong."""

    score: float
    """The score that detections have to exceed."""
    count: int
    """The most detections of an image: the last one has a rival of nearly its score."""
    nms: float | None
    """The IoU of NMS; None without NMS."""
    cell: float | None
    """Pixels of a heat map's cell in the network's input, where detections are its peaks: of
    neighbours that are nearly equal, one or both are. None for other detectors."""

    @classmethod
    def of(cls, model: nn.Module) -> "Limits":
        heads = getattr(model, "roi_heads", None)
        predictor = getattr(heads, "box_predictor", model)
        if isinstance(predictor, nn.ModuleList):  # Cascade R-CNN
            predictor = predictor[-1]
        count = getattr(predictor, "test_topk_per_image", None)
        return cls(
            score=predictor.test_score_thresh,
            count=model.max_detections_per_image if count is None else count,
            nms=getattr(predictor, "test_nms_thresh", None),
            cell=model.stride if isinstance(model, CenterNet) else None,
        )

    def leave_open(
        self, one: Instances, own: Instances, other: Instances, scale: float = 1.0
    ) -> bool:
        """Whether rounding decides over a detection that `own` has and `other` lacks.

        Args:
            one: the detection.
            own: all detections of its side.
            other: all of the other side.
            scale: pixels of the image for one of the network's input.
        """
        score = one.scores.item()
        if score - self.score <= MAX_SCORE:
            return True
        # CenterNet's list is full of peaks, those on the canvas around the image among them.
        is_full = len(own) >= self.count or self.cell is not None
        if is_full and score - own.scores.min().item() <= MAX_SCORE:
            return True
        same = other[other.pred_classes == one.pred_classes]
        if self.nms is not None:
            iou = pairwise_iou(one.pred_boxes, same.pred_boxes)
            return bool(((iou - self.nms).abs() < MAX_SCORE).any())
        if self.cell is None:
            return False
        equals = same[(same.scores - score).abs() <= MAX_SCORE / 10]
        distance = equals.pred_boxes.get_centers() - one.pred_boxes.get_centers()
        return bool((distance.abs().amax(dim=1) <= 2 * self.cell * scale).any())


def _check_rest(a, b, pairs, limits: Limits, scale: float, image: str) -> int:
    """How many detections without a counterpart rounding decides over.

    Raises:
        UserError: there is another one without a counterpart.
    """
    rest = 0
    matched = [{i for i, _ in pairs}, {k for _, k in pairs}]
    sides = ((a, b, matched[0], "PyTorch"), (b, a, matched[1], "ONNX Runtime"))
    for own, other, seen, who in sides:
        for i in sorted(set(range(len(own))) - seen):
            if not limits.leave_open(own[i], own, other, scale):
                box = [round(x, 3) for x in own.pred_boxes.tensor[i].tolist()]
                raise UserError(
                    f"{image}: {who} alone finds class {own.pred_classes[i].item()} with score "
                    f"{own.scores[i].item():.5f} at {box}; the other has nothing within "
                    f"{MAX_PIXELS:g} pixels and {MAX_SCORE:g} of score"
                )
            rest += 1
    return rest


def made_images(number: int = NUM_IMAGES) -> list[np.ndarray]:
    """(H, W, 3) uint8 of several sizes: boxes of random colours on smooth backgrounds.

    For want of real ones: a trained detector may find nothing in them.
    """
    random = np.random.default_rng(0)
    images = []
    for _ in range(number):
        height, width = random.integers(160, 480, size=2)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
        for _ in range(8):
            x, y = random.integers(0, (width - 20, height - 20))
            w, h = random.integers(10, 120, size=2)
            image[y : y + h, x : x + w] = random.integers(0, 256, 3)
        images.append(image)
    return images


__all__ = ["Comparison", "compare", "made_images", "match"]
