"""The predictions of CenterNet (Objects as Points, arXiv 1904.07850, Section 3).

Shapes: N images, K foreground classes, C channels, H x W cells.
"""

import math
from typing import NamedTuple

from detectron2.layers import get_norm
from torch import Tensor, nn


class CenterNetPredictions(NamedTuple):
    """What `CenterNetHead` gives for each cell.

    heatmap: (N, K, H, W) logits of an object's centre being there.
    offset: (N, 2, H, W) x and y of the centre from the cell's integer coordinates, in cells.
    size: (N, 2, H, W) width and height of the object's box, in cells.
    """

    heatmap: Tensor
    offset: Tensor
    size: Tensor


class CenterNetHead(nn.Module):
    """Three branches of a 3x3 convolution, ReLU and a 1x1 convolution: heat map, offset, size.

    The default has BatchNorm after the ReLU, as Section 5.1 of "Balance-Oriented Focal Loss" says;
    the authors of CenterNet have none: `norm=""`.

    Args:
        in_channels: C of the map.
        num_classes: K.
        head_channels: of the 3x3 convolutions; the authors' ResNets have 64, their DLA-34 256.
        norm: as in `detectron2.layers.get_norm`; "" is none.
        norm_after_activation: else between the 3x3 convolution and the ReLU.
        prior_prob: score that the heat map's bias stands for at the start. The authors' bias of
            -2.19 is 0.1.
        regression_std: of the normal weights, all biases 0, that offset and size start from; the
            authors' ResNets have 0.001. None: PyTorch's weights, as the authors' DLA-34 has.

    Raises:
        ValueError: `prior_prob` is not between 0 and 1.
    """

    def __init__(
        self,
        *,
        in_channels: int = 64,
        num_classes: int,
        head_channels: int = 64,
        norm: str = "BN",
        norm_after_activation: bool = True,
        prior_prob: float = 0.1,
        regression_std: float | None = 0.001,
    ):
        super().__init__()
        if not 0 < prior_prob < 1:
            raise ValueError(
                f"Expected argument `prior_prob` to be between 0 and 1, but got {prior_prob}"
            )
        self.in_channels, self.num_classes, self.head_channels = (
            in_channels,
            num_classes,
            head_channels,
        )
        self.norm, self.norm_after_activation = norm, norm_after_activation
        self.prior_prob, self.regression_std = prior_prob, regression_std
        self.heatmap, self.offset, self.size = (
            self._make_branch(channels) for channels in (num_classes, 2, 2)
        )
        nn.init.constant_(self.heatmap[-1].bias, math.log(prior_prob / (1 - prior_prob)))
        for branch in (self.offset, self.size):
            for m in branch:
                if isinstance(m, nn.Conv2d):
                    if regression_std is not None:
                        nn.init.normal_(m.weight, std=regression_std)
                    if m.bias is not None:
                        nn.init.zeros_(m.bias)

    def _make_branch(self, out_channels: int) -> nn.Sequential:
        norm = get_norm(self.norm, self.head_channels)
        # A norm subtracts the mean, and with it a bias of the convolution right before it.
        has_bias = norm is None or self.norm_after_activation
        layers = [nn.ReLU(inplace=True)]
        if norm is not None:
            layers.insert(1 if self.norm_after_activation else 0, norm)
        return nn.Sequential(
            nn.Conv2d(self.in_channels, self.head_channels, 3, padding=1, bias=has_bias),
            *layers,
            nn.Conv2d(self.head_channels, out_channels, 1),
        )

    def forward(self, x: Tensor | list[Tensor]) -> CenterNetPredictions:
        """The predictions for each cell.

        Args:
            x: the map (N, C, H, W), or a list of it alone.
        """
        if not isinstance(x, Tensor):  # as a dense detector passes its levels
            (x,) = x
        return CenterNetPredictions(self.heatmap(x), self.offset(x), self.size(x))

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, head_channels={self.head_channels}, "
            f"norm={self.norm}, norm_after_activation={self.norm_after_activation}, "
            f"prior_prob={self.prior_prob:g}, regression_std={self.regression_std}"
        )
