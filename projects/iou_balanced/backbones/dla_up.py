"""DLA-34's neck in CenterNet: deep layer aggregation with deformable convolutions.

Shapes: N images, C channels, H x W cells.
"""

from collections.abc import Sequence
from itertools import pairwise

from detectron2.modeling import Backbone
from torch import Tensor, nn

from .centernet_necks import CenterNetNeck, ConvNormReLU, init_bilinear


class IterativeAggregation(nn.Module):
    """Iterative deep aggregation (Deep Layer Aggregation, arXiv 1707.06484, Section 3.1).

    The first map takes up the others one by one, finest first: each is brought to its channels by
    a convolution, scaled up to its size, added to what there is, and mixed by a convolution.

    Args:
        in_channels: one a map; the first is that of all outputs.
        factors: by which each map but the first is scaled up.
        deformable, norm: see `ConvNormReLU`.
    """

    def __init__(
        self, *, in_channels: Sequence[int], factors: Sequence[int], deformable: bool, norm: str
    ):
        super().__init__()
        self.projections, self.ups, self.nodes = (nn.ModuleList() for _ in range(3))
        out = in_channels[0]
        for channels, factor in zip(in_channels[1:], factors, strict=True):
            self.projections.append(
                ConvNormReLU(
                    in_channels=channels, out_channels=out, deformable=deformable, norm=norm
                )
            )
            up = nn.ConvTranspose2d(
                out,
                out,
                kernel_size=2 * factor,
                stride=factor,
                padding=factor // 2,
                groups=out,
                bias=False,
            )
            init_bilinear(up)
            self.ups.append(up)
            self.nodes.append(
                ConvNormReLU(in_channels=out, out_channels=out, deformable=deformable, norm=norm)
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W), finest first, to the first one and what it is after each other one.

        All results have the first one's shape.
        """
        results = [maps[0]]
        for x, project, up, node in zip(
            maps[1:], self.projections, self.ups, self.nodes, strict=True
        ):
            results.append(node(results[-1] + up(project(x))))
        return results


class DLAUpNeck(CenterNetNeck):
    """Deep layer aggregation on the maps of a DLA-34: CenterNet's (arXiv 1904.07850, Figure 6d).

    One aggregation for each map but the coarsest, coarse to fine: it takes up all that is coarser,
    as the one before left it. Their last results, those of the strides 4, 8 and 16, make the
    output in a last aggregation: the map "p2" of stride 4 and 64 channels.

    Args:
        bottom_up: a Detectron2 backbone; its weights may be pretrained ones.
        in_features: names of its maps to take, finest first, each of half of the next one's
            stride. The output has channels and stride of the first.
        deformable: all convolutions are deformable ones (DCNv2).
        norm: as in `detectron2.layers.get_norm`.

    Raises:
        ValueError: `bottom_up` has no such maps, there are less than two, or a stride is not
            twice that of the map before.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str] = ("c2", "c3", "c4", "c5"),
        deformable: bool = True,
        norm: str = "BN",
    ):
        super().__init__(bottom_up, in_features)
        self.deformable, self.norm = deformable, norm
        strides = [shape.stride for shape in self.in_shapes]
        if len(strides) < 2 or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(
                "Expected argument `in_features` to name at least two maps, each of half of the "
                f"next one's stride, but got {self.in_features} with strides {strides}"
            )
        channels = [shape.channels for shape in self.in_shapes]
        kwargs = {"deformable": deformable, "norm": norm}
        self.aggregations = nn.ModuleList()
        for i in reversed(range(len(channels) - 1)):
            # What is coarser than map i + 1 has its size and channels by now.
            coarser = [channels[i + 1]] * (len(channels) - 1 - i)
            self.aggregations.append(
                IterativeAggregation(
                    in_channels=[channels[i], *coarser], factors=[2] * len(coarser), **kwargs
                )
            )
        self.last_aggregation = IterativeAggregation(
            in_channels=channels[:-1],
            factors=[2**i for i in range(1, len(channels) - 1)],
            **kwargs,
        )
        self.set_output(channels[0], strides[0])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The map (N, C, H / stride, W / stride), by its name.

        Args:
            x: images (N, 3, H, W).
        """
        features = self.bottom_up(x)
        *finer, coarsest = (features[name] for name in self.in_features)
        maps, lasts = [coarsest], []
        for feature, aggregate in zip(reversed(finer), self.aggregations, strict=True):
            maps = aggregate([feature, *maps])
            lasts.insert(0, maps[-1])
        return self.output(self.last_aggregation(lasts)[-1])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, deformable={self.deformable}, norm={self.norm}"
