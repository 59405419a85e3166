"""GroupNorm for the heads of Detectron2's RetinaNet and FCOS."""

from detectron2.config import LazyCall
from omegaconf import DictConfig
from torch import nn


class HeadGroupNorm:
    """What "GN" means as the `norm` of `RetinaNetHead` and `FCOSHead`, for all versions.

    Detectron2 v0.6 asks the head's norm for a layer of one channel, to look at its type, and fails
    at "GN" (arXiv 1803.08494), which cannot divide one channel into 32 groups.

    Args:
        num_groups: of each layer.
    """

    def __init__(self, *, num_groups: int = 32):
        self.num_groups = num_groups

    def __call__(self, num_channels: int) -> nn.GroupNorm:
        """The layer; for one channel with a single group.

        Raises:
            ValueError: the channels cannot be divided into the groups.
        """
        return nn.GroupNorm(1 if num_channels == 1 else self.num_groups, num_channels)

    def __repr__(self) -> str:
        return f"HeadGroupNorm(num_groups={self.num_groups})"


def use_head_group_norm(model: DictConfig) -> None:
    """Replace "GN" in the head of a RetinaNet's or FCOS's LazyConfig by its equal, for v0.6."""
    head = model.get("head")
    if isinstance(head, DictConfig) and head.get("norm") == "GN":
        head.norm = LazyCall(HeadGroupNorm)(num_groups=32)
