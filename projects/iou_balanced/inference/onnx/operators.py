"""What PyTorch's exporter does not write by itself: NMS of a batch, deformable convolution.

Shapes: N images, S boxes of each, K classes.
"""

import contextlib

import torch
from torch import Tensor
from torchvision.ops import batched_nms

OPSET = 17
DEFORMABLE_OPSET = 19
"""The first with DeformConv."""


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression: by class, for all images at once.

    `apply` takes boxes (N, S, 4) XYXY, scores (N, K, S), the most boxes of a class and image, the
    IoU above which the lower score goes, and the score that boxes have to exceed. It returns int64
    (M, 3): image, class and box of those that are kept.
    """

    @staticmethod
    def forward(ctx, boxes, scores, max_boxes: int, iou_threshold: float, score_threshold: float):
        found = []
        for image in range(len(boxes)):
            classes, index = (scores[image] > score_threshold).nonzero().unbind(dim=1)
            kept = batched_nms(
                boxes[image, index], scores[image, classes, index], classes, iou_threshold
            )
            classes, index = classes[kept], index[kept]
            found.append(torch.stack([torch.full_like(index, image), classes, index], dim=1))
        return torch.cat(found)

    @staticmethod
    def symbolic(g, boxes, scores, max_boxes: int, iou_threshold: float, score_threshold: float):
        return g.op(
            "NonMaxSuppression",
            boxes,
            scores,
            g.op("Constant", value_t=torch.tensor([max_boxes])),
            g.op("Constant", value_t=torch.tensor([iou_threshold], dtype=torch.float32)),
            g.op("Constant", value_t=torch.tensor([score_threshold], dtype=torch.float32)),
        )


def keep_by_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    max_boxes: int,
    iou_threshold: float,
    score_threshold: float,
) -> Tensor:
    """The scores (N, S) of the boxes that NMS by class keeps, and 0 for all others.

    Args:
        boxes: (N, S, 4) XYXY.
        scores: (N, S).
        labels: (N, S) in [0, K).
        num_classes: K.
        max_boxes: as many boxes of a class are kept in an image.
        iou_threshold: of two boxes of a class with a greater IoU the lower score goes.
        score_threshold: boxes with a score up to this go.
    """
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    by_class = torch.where(labels[:, None] == classes, scores[:, None], -1.0)
    found = NonMaxSuppression.apply(boxes, by_class, max_boxes, iou_threshold, score_threshold)
    kept = torch.zeros_like(scores)
    kept[found[:, 0], found[:, 2]] = 1.0
    return scores * kept


def _deform_conv2d(
    g, x, weight, offset, mask, bias, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, *others
):
    groups, offset_groups, use_mask = others
    strides, pads, dilations = [stride_h, stride_w], [pad_h, pad_w], [dil_h, dil_w]
    from torch.onnx.symbolic_helper import _get_const

    def numbers(values):
        return [_get_const(v, "i", "number") for v in values]

    inputs = [x, weight, offset, bias]
    if _get_const(use_mask, "b", "use_mask"):
        inputs.append(mask)
    return g.op(
        "DeformConv",
        *inputs,
        strides_i=numbers(strides),
        pads_i=numbers(pads * 2),
        dilations_i=numbers(dilations),
        group_i=numbers([groups])[0],
        offset_group_i=numbers([offset_groups])[0],
    )


@contextlib.contextmanager
def deformable_convolution():
    """Let the exporter write torchvision's deformable convolution as ONNX's DeformConv."""
    name = "torchvision::deform_conv2d"
    torch.onnx.register_custom_op_symbolic(name, _deform_conv2d, DEFORMABLE_OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(name, DEFORMABLE_OPSET)


def runs_deformable_convolution() -> bool:
    """Whether the ONNX Runtime that is installed has DeformConv for CPUs; older ones do not."""
    import onnxruntime
    from onnx import TensorProto, helper

    shapes = {"x": [1, 1, 3, 3], "w": [1, 1, 1, 1], "offset": [1, 2, 3, 3], "y": [1, 1, 3, 3]}
    info = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], kernel_shape=[1, 1])
    inputs = [info[name] for name in ("x", "w", "offset")]
    graph = helper.make_graph([node], "probe", inputs, [info["y"]])
    opset = helper.make_opsetid("", DEFORMABLE_OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # its errors are bound from C++
        return False
    return True
