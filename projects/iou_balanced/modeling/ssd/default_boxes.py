"""SSD's default boxes and their matching with objects (Liu et al., arXiv 1512.02325, Section 2.2).

Shapes: G objects of an image, R default boxes over all levels, A of them in a cell. Boxes are XYXY
in absolute pixels.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from detectron2.modeling.anchor_generator import BufferList
from detectron2.structures import Boxes
from torch import Tensor, nn

# In the authors' code a smaller IoU is no overlap.
_MIN_IOU = 1e-6


def ssd_box_sizes(
    image_size: int,
    num_levels: int,
    scale_range: tuple[float, float] = (0.2, 0.9),
    first_scale: float = 0.1,
    whole_pixels: bool = True,
) -> list[tuple[float, float]]:
    """The sizes of each level's default boxes, by the rule of the authors' code.

    From the second level on, scales rise from the first to the second number of `scale_range` by
    equal steps, which are cut to whole percents: Eq. 4 of arXiv 1512.02325. The finest level has a
    scale of its own (Section 3.1).

    Args:
        image_size: height and width in pixels.
        num_levels: at least 3.
        scale_range: fractions of the image size, read in whole percents. PASCAL VOC: (0.2, 0.9) at
            300 and (0.15, 0.9) at 512; COCO: (0.15, 0.9) at 300 and (0.1, 0.9) at 512.
        first_scale: of the finest level, likewise. PASCAL VOC: 0.1 at 300 and 0.07 at 512; COCO:
            0.07 at 300 and 0.04 at 512.
        whole_pixels: cut the sizes to whole pixels, as the authors' layer for default boxes and
            MMDetection do. It makes a difference at 512 only, for example 35 instead of 35.84.

    Returns:
        (min, max) in pixels for each level, finest first; a level's max is the next one's min.

    Raises:
        ValueError: fewer than 3 levels, or scales that do not rise.
    """
    low, high = (round(100 * scale) for scale in scale_range)
    first = round(100 * first_scale)
    if num_levels < 3:
        raise ValueError(f"Expected argument `num_levels` to be at least 3, but got {num_levels}")
    step = (high - low) // (num_levels - 2)
    if not 0 < first < low < high or step < 1:
        raise ValueError(
            "Expected arguments 0 < `first_scale` < `scale_range`[0] < `scale_range`[1], a percent "
            f"or more a level apart, but got {first_scale} and {tuple(scale_range)}"
        )
    percents = [first, *(low + i * step for i in range(num_levels))]
    sizes = [image_size * percent / 100 for percent in percents]
    if whole_pixels:
        sizes = [float(int(size)) for size in sizes]
    return list(itertools.pairwise(sizes))


class DefaultBoxGenerator(nn.Module):
    """Default boxes for maps of any size, in the place of one of Detectron2's anchor generators.

    The boxes of cell (i, j), row and column, have their centre at (j + 0.5, i + 0.5) * stride. A
    level has its cells row by row, and in each cell: the square of side min, the square of side
    sqrt(min * max), then for each ratio r a box of the first one's area that is r times as wide as
    high, and one that is r times as high as wide. Boxes are not clipped to the image.

    Args:
        min_max_sizes: (min, max) in pixels for each level, see `ssd_box_sizes`.
        aspect_ratios: one list a level, numbers greater than 1, for example [2, 3].
        strides: distance of the centres for each level, in pixels. The authors' are 8, 16, 32, 64,
            100, 300 at 300, and powers of two from 8 to 512 at 512.

    Raises:
        ValueError: the lengths differ, or a number makes no sense.
    """

    box_dim: int = 4

    def __init__(
        self,
        *,
        min_max_sizes: Sequence[tuple[float, float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[float],
    ):
        super().__init__()
        if not len(min_max_sizes) == len(aspect_ratios) == len(strides) > 0:
            raise ValueError(
                "Expected arguments `min_max_sizes`, `aspect_ratios` and `strides` to have one "
                f"entry for each level, but got {len(min_max_sizes)}, {len(aspect_ratios)} and "
                f"{len(strides)}"
            )
        for level, (sizes, ratios, stride) in enumerate(
            zip(min_max_sizes, aspect_ratios, strides, strict=True)
        ):
            low, high = sizes
            if not 0 < low < high or not stride > 0 or not all(r > 1 for r in ratios):
                raise ValueError(
                    f"Expected level {level} to have 0 < min < max, ratios greater than 1 and a "
                    f"stride greater than 0, but got {(low, high)}, {list(ratios)} and {stride}"
                )
        self.min_max_sizes = [tuple(sizes) for sizes in min_max_sizes]
        self.aspect_ratios = [list(ratios) for ratios in aspect_ratios]
        self.strides = list(strides)
        self.cell_anchors = BufferList(
            [
                torch.tensor(_cell_boxes(low, high, ratios))
                for (low, high), ratios in zip(self.min_max_sizes, self.aspect_ratios, strict=True)
            ]
        )

    @property
    def num_anchors(self) -> list[int]:
        """A for each level."""
        return [len(boxes) for boxes in self.cell_anchors]

    num_cell_anchors = num_anchors

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """The default boxes of a batch's maps, the same for all images.

        Args:
            features: one (N, C, H, W) a level.

        Returns:
            One a level, H * W * A boxes each; they share no memory.

        Raises:
            ValueError: another number of maps than levels.
        """
        if len(features) != len(self.strides):
            raise ValueError(
                f"Expected argument `features` to have {len(self.strides)} levels, "
                f"but got {len(features)}"
            )
        boxes = []
        for x, stride, cell in zip(features, self.strides, self.cell_anchors, strict=True):
            height, width = x.shape[-2:]
            y, x = torch.meshgrid(
                (torch.arange(height, dtype=cell.dtype, device=cell.device) + 0.5) * stride,
                (torch.arange(width, dtype=cell.dtype, device=cell.device) + 0.5) * stride,
                indexing="ij",
            )
            centers = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            boxes.append(Boxes((centers + cell).reshape(-1, 4)))
        return boxes

    def extra_repr(self) -> str:
        return (
            f"min_max_sizes={self.min_max_sizes}, aspect_ratios={self.aspect_ratios}, "
            f"strides={self.strides}"
        )


def _cell_boxes(low: float, high: float, ratios: Sequence[float]) -> list[list[float]]:
    """The A boxes of a cell around the origin."""
    sizes = [(low, low), (math.sqrt(low * high),) * 2]
    for ratio in ratios:
        longer, shorter = low * math.sqrt(ratio), low / math.sqrt(ratio)
        sizes += [(longer, shorter), (shorter, longer)]
    return [[-w / 2, -h / 2, w / 2, h / 2] for w, h in sizes]


def match_default_boxes(
    gt_boxes: Tensor, default_boxes: Tensor, iou_threshold: float = 0.5
) -> Tensor:
    """Which object each default box has to find (arXiv 1512.02325, Section 2.2).

    First each object gets a box of its own, as in the authors' code: again and again the pair of
    highest IoU among the objects and boxes that are still free; equals go to the lower box, then
    to the lower object. An object that no free box touches gets none. Then every other box belongs
    to the object of highest IoU, where that is `iou_threshold` or more.

    Args:
        gt_boxes: (G, 4); G may be 0.
        default_boxes: (R, 4).
        iou_threshold: least IoU of those other boxes, in [0, 1].

    Returns:
        (R,) int64, the index of the object, or -1.
    """
    return match_images([gt_boxes], default_boxes, iou_threshold)[0]


@torch.no_grad()
def match_images(
    gt_boxes: Sequence[Tensor], default_boxes: Tensor, iou_threshold: float = 0.5
) -> list[Tensor]:
    """`match_default_boxes` for each image of a batch; a GPU waits once for all of them.

    Args:
        gt_boxes: one (G, 4) an image.
        default_boxes: (R, 4), the same for all images.
        iou_threshold: see `match_default_boxes`.

    Returns:
        One (R,) int64 an image.
    """
    # One entry too many, the last: index -1, of objects without a box, writes there.
    matches = [
        torch.full((len(default_boxes) + 1,), -1, dtype=torch.int64, device=default_boxes.device)
        for _ in gt_boxes
    ]
    pending = []
    for boxes, found in zip(gt_boxes, matches, strict=True):
        if len(boxes) and len(default_boxes):
            iou = _pairwise_iou(boxes, default_boxes)
            best_iou, best_object = iou.max(dim=0)
            found[:-1] = torch.where(best_iou >= iou_threshold, best_object, -1)
            own_iou, own_box = iou.max(dim=1)  # of equals the first
            in_order = own_box.sort().values
            shared = (in_order[1:] == in_order[:-1]).any()
            pending.append((found, iou, torch.where(own_iou > _MIN_IOU, own_box, -1), shared))
    if pending:
        shared = torch.stack([entry[-1] for entry in pending]).tolist()
        for (found, iou, own_box, _), is_shared in zip(pending, shared, strict=True):
            if is_shared:
                own_box = _share_out(iou)
            found[own_box] = torch.arange(len(own_box), device=found.device)
    return [found[:-1] for found in matches]


def _pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(G, R) IoU of boxes with area; Detectron2's works on (G, R, 2), thrice as slowly."""
    left1, top1, right1, bottom1 = boxes1[:, :, None].unbind(dim=1)
    left2, top2, right2, bottom2 = boxes2.unbind(dim=1)
    width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp_(min=0)
    height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp_(min=0)
    intersection = width.mul_(height)
    areas = (right1 - left1) * (bottom1 - top1) + (right2 - left2) * (bottom2 - top2)
    return intersection / areas.sub_(intersection)


def _share_out(iou: Tensor) -> Tensor:
    """(G, R) to (G,), the box of each object or -1, where several have the same best box.

    Deferred acceptance (Gale and Shapley) gives the pairs of the greedy rule, because both sides
    rank by the same numbers, and needs a round more only for those that want the same box.
    """
    device = iou.device
    iou = iou.to("cpu", copy=True)  # a few numbers at a time: no work for a GPU
    values, boxes = (x.tolist() for x in iou.max(dim=1))
    owner: dict[int, int] = {}
    asking = list(range(len(boxes)))
    while asking:
        refused = []
        for i in asking:
            if values[i] <= _MIN_IOU:
                boxes[i] = -1
                continue
            # The pair that comes first in the greedy order keeps the box.
            first, *others = sorted({i, owner.get(boxes[i], i)}, key=lambda j: (-values[j], j))
            owner[boxes[i]] = first
            refused += others
        if refused:
            # The pair is out for good: a box is only ever taken over by an object of higher IoU.
            iou[refused, [boxes[i] for i in refused]] = -1
            best = iou[refused].max(dim=1)
            for i, value, box in zip(refused, *(x.tolist() for x in best), strict=True):
                values[i], boxes[i] = value, box
        asking = refused
    return torch.tensor(boxes, device=device)
