"""What images a timm model takes, and which of its parameters its maps depend on, found by trying.

timm says neither: a model that is marked for one size may take any, and one that takes any may
need sides of twice the stride of its coarsest map.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# (H, W) of an image in pixels.
Size = tuple[int, int]


class OffStrideError(ValueError):
    """A map with other cells than its stride says, for which anchors would be wrong."""


@dataclass(frozen=True)
class Maps:
    """Takes the maps in use out of what a timm model gives.

    Args:
        model_name: for messages.
        names: of the maps in use, finest first.
        indices: of these among the model's maps.
        strides: of these, in pixels.
        channels_last: the model gives (N, H, W, C), as Swin.
        in_channels: C of the images.
        usual_side: of the images that the model is built for, the longer one in pixels.
    """

    model_name: str
    names: tuple[str, ...]
    indices: tuple[int, ...]
    strides: tuple[int, ...]
    channels_last: bool
    in_channels: int = 3
    usual_side: int = 224

    def __call__(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Images (N, in_channels, H, W) to the maps (N, C, H / stride, W / stride).

        Raises:
            OffStrideError: a map is a cell or more off.
        """
        given = model(x)
        maps = [given[i] for i in self.indices]
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        for key, m, stride in zip(self.names, maps, self.strides, strict=True):
            # Convolutions without padding, as Inception's, give other cells than anchors are for.
            if any(
                abs(a * stride - b) >= stride for a, b in zip(m.shape[2:], x.shape[2:], strict=True)
            ):
                raise OffStrideError(
                    f"Expected a model whose map {key} has cells of {stride} pixels, but "
                    f"{self.model_name} gives {tuple(m.shape[2:])} for images of "
                    f"{tuple(x.shape[2:])}"
                )
        return dict(zip(self.names, maps, strict=True))


@dataclass(frozen=True)
class Trial:
    """What a trial has found.

    Args:
        divisor: the sides of images have to be multiples of it, in pixels.
        image_size: the only (H, W) that the model takes; None where it takes any.
        unused: names of the parameters that no map in use depends on.
    """

    divisor: int
    image_size: Size | None
    unused: tuple[str, ...]


# Returns the model for these `model_args`, and its maps.
Build = Callable[[Mapping], tuple[nn.Module, Maps]]


def try_out(model: nn.Module, maps: Maps, model_args: Mapping, build: Build) -> Trial:
    """Run the smallest images that a detector could pad to, on a copy of the model.

    The copy shares the parameters and has all else for itself: what a model keeps from one forward
    to the next (BatchNorm statistics, LeViT's biases) and the random state stay as they were. The
    images are so small that this takes less time than building the model.

    Raises:
        OffStrideError: a map is a cell or more off; names the maps that are not.
        ValueError: images of several sizes do not run, whatever they are multiples of. The message
            names the argument that helps, if one does.
    """
    stride = maps.strides[-1]
    divisors = [stride * 2**i for i in range(4)]
    size = model_args.get("img_size")
    errors = []
    for divisor in divisors if size is None else [stride]:
        sizes = _sizes(maps, divisor)
        try:
            if divisor > stride:  # first on shapes alone: most larger images fail, and take long
                _unused_by_shapes(model, maps, sizes)
            unused = _unused(model, maps, sizes)
        except Exception as e:  # of timm's, which can be anything
            errors.append(e)
        else:
            return Trial(divisor, None, unused)
    for e in errors:
        if isinstance(e, OffStrideError):
            raise OffStrideError(f"{e}{_right_maps(model, maps)}") from e
    if size is not None:
        return _one_size(model, maps, size)
    raise ValueError(
        "Expected argument `name` to be a timm model that takes images of any size, but got "
        f"{maps.model_name!r}, which {_remedy(build, maps, model_args, divisors, errors[0])}"
    )


def _sizes(maps: Maps, divisor: int) -> list[Size]:
    """Odd multiples of `divisor`, which differ; and the smallest image.

    The long side is longer than usual, where tables of positions may end, as MViTv2's do.
    """
    longest = max(3, maps.usual_side // divisor + 1) | 1
    return [(divisor, longest * divisor), (divisor, divisor)]


def _right_maps(model: nn.Module, maps: Maps) -> str:
    """The end of a message about a map that is off its stride: which maps are not."""
    stride = maps.strides[-1]
    for i in range(1, len(maps.names)):
        rest = replace(
            maps, names=maps.names[i:], indices=maps.indices[i:], strides=maps.strides[i:]
        )
        try:
            _unused(model, rest, _sizes(rest, stride))
        except Exception:
            continue
        return f"; out_features={list(rest.names)} has none such"
    return ""


def _one_size(model: nn.Module, maps: Maps, size: int | Sequence[int]) -> Trial:
    height, width = size = (size, size) if isinstance(size, int) else tuple(size)
    stride = maps.strides[-1]
    if height % stride or width % stride:
        raise ValueError(
            f"Expected argument `model_args` with an img_size of multiples of {stride}, because "
            f"{maps.model_name} takes images of that size only, but got {size}"
        )
    try:
        unused = _unused_by_shapes(model, maps, [size])
    except Exception as e:
        raise ValueError(
            f"Expected argument `model_args` with an img_size that {maps.model_name} can run, but "
            f"got {size}: {one_line(e)}"
        ) from e
    return Trial(stride, size, unused)


def _remedy(
    build: Build, maps: Maps, model_args: Mapping, divisors: Sequence[int], error: Exception
) -> str:
    """The end of a sentence that begins with the model."""
    stride = divisors[0]
    any_size = {"strict_img_size": False}
    if _runs(build, {**model_args, **any_size}, [(3 * stride, 5 * stride), (stride, stride)]):
        return f"does so with model_args={any_size}"
    for shape in ((5, 9), (7, 7)):  # of any shape, or else square
        for divisor in divisors:
            # A small one too, because 7 strides may be the size that the model has by default.
            sizes = [(a * divisor, b * divisor) for a, b in (shape, (3, 3))]
            if all(_runs(build, {**model_args, "img_size": size}, [size]) for size in sizes):
                kind = "(H, W)" if shape[0] != shape[1] else "(H, H)"
                return (
                    f"takes images of one size, to be given as model_args={{'img_size': {kind}}}: "
                    f"multiples of {divisor} that no image exceeds, because smaller ones are padded"
                )
    size = " x ".join(map(str, _sizes(maps, stride)[0]))
    return f"fails for {size} and knows no argument that helps: {one_line(error)}"


def _runs(build: Build, model_args: Mapping, sizes: Sequence[Size]) -> bool:
    # On "meta", shapes without values are enough; but not every model can be built or run there.
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                model, maps = build(model_args)
                _unused(model, maps, sizes)
        except Exception as e:
            if device == "meta" and "meta" in str(e):
                continue
            return False
        return True
    return False


def _unused(
    model: nn.Module, maps: Maps, sizes: Sequence[Size], device: str | None = None
) -> tuple[str, ...]:
    """Run images of these sizes, and name the trained parameters that have no path to a map."""
    trial = _copy(model, device).eval()
    first = next(trial.parameters())
    # Models built in inference mode cannot be trained, and record no graph.
    graph = not first.is_inference()
    used: set[int] = set()
    devices = [first.device] if first.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(graph):
        for size in sizes:
            shape = (1, maps.in_channels, *size)
            x = torch.zeros(shape, dtype=first.dtype, device=first.device)
            used |= _leaves(maps(trial, x).values())
    # Parameters that the model itself keeps fixed, such as tables of positions, are in use.
    trained = [(k, p) for k, p in trial.named_parameters() if graph and p.requires_grad]
    return tuple(k for k, p in trained if id(p) not in used)


def _unused_by_shapes(model: nn.Module, maps: Maps, sizes: Sequence[Size]) -> tuple[str, ...]:
    """`_unused` on shapes without values, for sizes that would take long."""
    try:
        return _unused(model, maps, sizes, device="meta")
    except Exception as e:
        if "meta" not in str(e):
            raise
    # The model needs values, or has some on another device.
    return _unused(model, maps, sizes)


def _copy(model: nn.Module, device: str | None) -> nn.Module:
    """A copy with the parameters themselves, or on `device` with empty ones."""
    memo = {}
    for p in model.parameters():
        empty = nn.Parameter(torch.empty_like(p, device=device), p.requires_grad) if device else p
        memo[id(p)] = empty
    if device:
        memo |= {id(b): torch.empty_like(b, device=device) for b in model.buffers()}
    return copy.deepcopy(model, memo)


def _leaves(tensors) -> set[int]:
    """The ids of the parameters in the graph behind some tensors."""
    nodes = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen, leaves = set(nodes), set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return leaves


def one_line(error: Exception) -> str:
    """What an error is and says, in 160 characters of text at most."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def map_names(name: str, strides: Sequence[int]) -> list[str]:
    """ "c2" for stride 4, and so on.

    Raises:
        ValueError: the strides are not some 2^i, each once.
    """
    if sorted({2 ** round(math.log2(s)) for s in strides}) != list(strides):
        raise ValueError(
            "Expected a timm model with one map for each of some strides 2^i, but got "
            f"{name!r}, whose maps have the strides {list(strides)}"
        )
    return [f"c{int(math.log2(s))}" for s in strides]
