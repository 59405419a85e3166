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
    to_check = []
    for index, x in enumerate(batched_inputs):
        if "instances" not in x:
            raise ValueError(f"{_name(index, x)} has no ground truth: 'instances' is missing")
        boxes, classes = x["instances"].gt_boxes.tensor, x["instances"].gt_classes
        # Data loaders give CPU tensors; on a GPU this check would wait for it in every step.
        if len(boxes) and boxes.device.type == "cpu":
            to_check.append((index, boxes, classes))
    if not to_check:
        return
    # All images at once; one by one only to say which it is.
    _, boxes, classes = zip(*to_check, strict=True)
    if _are_good(torch.cat(boxes)).all() and _are_known(torch.cat(classes), num_classes).all():
        return
    for index, boxes, classes in to_check:
        x, good = batched_inputs[index], _are_good(boxes)
        if not good.all():
            i = int((~good).nonzero()[0])
            raise ValueError(
                f"{_name(index, x)}: ground-truth box {i} {boxes[i].tolist()} (XYXY) has no area "
                "or is not finite; drop such boxes when the data set is loaded"
            )
        known = _are_known(classes, num_classes)
        if not known.all():
            i = int((~known).nonzero()[0])
            raise ValueError(
                f"{_name(index, x)}: ground-truth box {i} has class {int(classes[i])}, but the "
                f"model has num_classes={num_classes}, classes 0..{num_classes - 1}"
            )


def _are_good(boxes: torch.Tensor) -> torch.Tensor:
    """(M,) whether a box is finite and has an area."""
    return torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _are_known(classes: torch.Tensor, num_classes: int) -> torch.Tensor:
    return (classes >= 0) & (classes < num_classes)


def _name(index: int, x: dict) -> str:
    return f"image {x.get('file_name', x.get('image_id', index))}"
