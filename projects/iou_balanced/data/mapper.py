"""A dataset mapper for augmentations that depend on the boxes."""

import copy
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import BoxMode

from iou_balanced.data.transforms.augmentations import transform_boxes

__all__ = ["BoxAwareDatasetMapper"]


class BoxAwareDatasetMapper(DatasetMapper):
    """Detectron2's mapper, whose augmentations get the boxes and may remove some.

    In training, the boxes of all annotations but crowds go to the augmentations (`AugInput.boxes`,
    float32 (N, 4), XYXY), and annotations that a crop does not keep
    (`KeepCentersCropTransform`) are left out with their masks and keypoints. All else is
    Detectron2's: with augmentations that neither read nor remove boxes, and in inference, the
    result is the same.

    Args:
        is_train: whether it's used in training or inference.
        ignore_difficult: in training, leave out annotations with "difficult": 1, as
            `register_voc_dir` gives them. They do not count for the augmentations either.
        **kwargs: all other arguments of Detectron2's `DatasetMapper`.
    """

    @configurable
    def __init__(self, is_train: bool, *, ignore_difficult: bool = False, **kwargs):
        super().__init__(is_train, **kwargs)
        self.ignore_difficult = ignore_difficult

    def __call__(self, dataset_dict: dict) -> dict:
        if not self.is_train:
            return super().__call__(dataset_dict)
        annotations = dataset_dict.get("annotations", [])
        if self.ignore_difficult:
            annotations = [a for a in annotations if not a.get("difficult", 0)]
            if "annotations" in dataset_dict:
                dataset_dict = {**dataset_dict, "annotations": annotations}
        # Detectron2's __call__ makes the AugInput itself, without boxes, but it is a list of
        # augmentations that it gives it to. The copy makes this safe in threads.
        mapper = copy.copy(self)
        mapper.augmentations = _WithBoxes(self.augmentations, _boxes(_no_crowd(annotations)))
        return super(BoxAwareDatasetMapper, mapper).__call__(dataset_dict)

    def _transform_annotations(self, dataset_dict, transforms, image_shape):
        annotations = _no_crowd(dataset_dict["annotations"])  # crowds are dropped anyway
        _, kept = transform_boxes(transforms, _boxes(annotations))
        if len(kept) > 0:
            dataset_dict["annotations"] = [annotations[i] for i in kept]
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        else:  # with recompute_boxes Detectron2 fails here, as there are no masks
            del dataset_dict["annotations"]
            dataset_dict["instances"] = utils.annotations_to_instances([], image_shape)


class _WithBoxes:
    """Augmentations that add boxes to the AugInput that they are given."""

    def __init__(self, augmentations: T.AugmentationList, boxes: np.ndarray):
        self.augmentations = augmentations
        self.boxes = boxes

    def __call__(self, aug_input: T.AugInput) -> T.TransformList:
        boxed = _BoxAugInput(aug_input.image, boxes=self.boxes, sem_seg=aug_input.sem_seg)
        transforms = self.augmentations(boxed)
        aug_input.image, aug_input.sem_seg = boxed.image, boxed.sem_seg
        return transforms


class _BoxAugInput(T.AugInput):
    """An AugInput without the boxes that a crop did not keep, for the augmentations after it."""

    def transform(self, tfm: T.Transform) -> None:
        boxes, self.boxes = self.boxes, None
        super().transform(tfm)
        self.boxes, _ = transform_boxes(tfm, boxes)


def _no_crowd(annotations: Sequence[dict]) -> list[dict]:
    return [a for a in annotations if a.get("iscrowd", 0) == 0]


def _boxes(annotations: Sequence[dict]) -> np.ndarray:
    """(N, 4) float32, XYXY."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)
