"""Repeat-factor sampling of LVIS (arXiv 1908.03195, Appendix B.2), by `train.repeat_threshold`."""

import itertools
import logging
import math

import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler

from iou_balanced.data import ClassCounts

from .errors import UserError

logger = logging.getLogger(__name__)

KEY = "train.repeat_threshold"


class ContinuingRepeatSampler(RepeatFactorTrainingSampler):
    """Detectron2's endless stream of indices, images with rare classes more often.

    Args:
        repeat_factors: (images,) how often each comes in an epoch, at least 1.
        seed: of the shuffle, the same in all processes; None draws one.
        start: elements to leave out, counted over all processes.
    """

    def __init__(self, repeat_factors: torch.Tensor, *, seed: int | None = None, start: int = 0):
        super().__init__(repeat_factors, seed=seed)
        self._start = start

    def _infinite_indices(self):
        yield from itertools.islice(super()._infinite_indices(), self._start, None)


def repeat_factors(
    dataset, threshold: float, *, ignore_difficult: bool = False, key: str = KEY
) -> torch.Tensor:
    """(images,) Detectron2's: the largest max(1, sqrt(threshold / f)) of the image's classes.

    f is the share of images that show the class; crowds count there.

    Args:
        dataset: list of Detectron2's dicts.
        threshold: t; a class that is in a smaller share of the images is repeated.
        ignore_difficult: boxes with "difficult" do not show their class, see
            `BoxAwareDatasetMapper`.
        key: what gave the threshold, for messages.

    Raises:
        UserError: the images are no list of dicts with annotations.
    """
    if not isinstance(dataset, list) or not dataset or "annotations" not in dataset[0]:
        raise UserError(
            f"{key}={threshold} needs a dataloader.train.dataset that is a list of images with "
            "their annotations; for another give dataloader.train.sampler"
        )
    if ignore_difficult:
        dataset = [
            {"annotations": [a for a in record["annotations"] if not a.get("difficult")]}
            for record in dataset
        ]
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dataset, threshold)


def repeat_sampler(
    dataset,
    threshold: float,
    *,
    seed: int | None = None,
    start: int = 0,
    ignore_difficult: bool = False,
) -> ContinuingRepeatSampler:
    """The sampler of `train.repeat_threshold`.

    Args:
        dataset: see `repeat_factors`.
        threshold: see `repeat_factors`.
        seed: see `ContinuingRepeatSampler`.
        start: see `ContinuingRepeatSampler`.
        ignore_difficult: see `repeat_factors`.
    """
    factors = repeat_factors(dataset, threshold, ignore_difficult=ignore_difficult)
    return ContinuingRepeatSampler(factors, seed=seed, start=start)


def repeat_columns(
    dataset,
    threshold: float,
    counts: ClassCounts,
    *,
    ignore_difficult: bool = False,
    key: str = KEY,
) -> dict[str, list[float]]:
    """What the sampling does to each class, for the table of the class counts.

    Args:
        dataset: see `repeat_factors`.
        threshold: see `repeat_factors`.
        counts: of the data set.
        ignore_difficult: see `repeat_factors`.
        key: see `repeat_factors`.

    Returns:
        "repeat": the class's own factor; "instances an epoch": how many of its instances, without
        crowds, an epoch has on average, through its own factor and those of the classes it shares
        images with.
    """
    factors = repeat_factors(dataset, threshold, ignore_difficult=ignore_difficult, key=key)
    factors = factors.tolist()
    shown, images = [0.0] * len(counts.class_names), [0] * len(counts.class_names)
    for record, factor in zip(dataset, factors, strict=True):
        counted = [
            a for a in record["annotations"] if not (ignore_difficult and a.get("difficult"))
        ]
        for k in {a["category_id"] for a in counted}:
            images[k] += 1
        for a in counted:
            if not a.get("iscrowd"):
                shown[a["category_id"]] += factor
    own = [max(1.0, math.sqrt(threshold * len(dataset) / n)) if n else math.nan for n in images]
    logger.info(
        "%s=%g: an epoch has %.0f images on average in the place of %d",
        *(key, threshold, sum(factors), len(factors)),
    )
    return {"repeat": own, "instances an epoch": [float(round(x)) for x in shown]}
