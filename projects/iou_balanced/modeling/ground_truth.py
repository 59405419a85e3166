"""A look at the ground truth where it enters a model."""

import torch


def check_ground_truth(batched_inputs: list[dict], num_classes: int) -> None:
    """Refuse boxes and classes that would turn into NaN, or into an assertion of the GPU.

    Args:
        batched_inputs: Detectron2's model input, with "instances" (gt_boxes, gt_classes).
        num_classes: K of the model.

    Raises:
        ValueError: names the image, the box and what is wrong with it.
    """
    for index, x in enumerate(batched_inputs):
        if "instances" not in x:
            raise ValueError(f"{_name(index, x)} has no ground truth: 'instances' is missing")
        boxes, classes = x["instances"].gt_boxes.tensor, x["instances"].gt_classes
        # Data loaders give CPU tensors; on a GPU this check would wait for it in every step.
        if len(boxes) == 0 or boxes.device.type != "cpu":
            continue
        good = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if not good.all():
            i = int((~good).nonzero()[0])
            raise ValueError(
                f"{_name(index, x)}: ground-truth box {i} {boxes[i].tolist()} (XYXY) has no area "
                "or is not finite; drop such boxes when the data set is loaded"
            )
        known = (classes >= 0) & (classes < num_classes)
        if not known.all():
            i = int((~known).nonzero()[0])
            raise ValueError(
                f"{_name(index, x)}: ground-truth box {i} has class {int(classes[i])}, but the "
                f"model has num_classes={num_classes}, classes 0..{num_classes - 1}"
            )


def _name(index: int, x: dict) -> str:
    return f"image {x.get('file_name', x.get('image_id', index))}"
