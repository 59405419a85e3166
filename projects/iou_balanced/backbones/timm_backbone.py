"""timm's models with a pyramid of maps as Detectron2 backbones.

Its ImageNet weights are a checkpoint like any other, so that nothing starts at random unnoticed:
`train.init_checkpoint="timm://mobilenetv2_100.ra_in1k"` (see `register_weights_handler`).
"""

import logging
from collections.abc import Mapping, Sequence

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import Backbone
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from .timm_create import check_name, create_features, usual_side
from .timm_trial import Maps, map_names, one_line, try_out

logger = logging.getLogger(__name__)

# The attribute of `TimmBackbone` that holds timm's model. Names of weights start with it, which
# keeps Detectron2's matching by suffix from taking one layer's "conv1.weight" for another's.
PREFIX = "timm"
_NORMS = (None, "BN", "FrozenBN", "SyncBN")


class TimmBackbone(Backbone):
    """Feature maps of a timm model (`features_only=True`), called after their strides.

    The map of stride 2^i is "c<i>", as in the FPN paper (arXiv 1612.03144): "c2" to "c5" for
    strides 4 to 32, where Detectron2's ResNet has "res2" to "res5". Weights are random until a
    checkpoint is loaded.

    Stages after the last map in use are left out. Parameters that still no map depends on, as in
    an HRNet, whose branches are mixed, are frozen: distributed training would stop at them. A line
    of the log counts them.

    docs/timm_models.md lists which models work, which need an argument, and which have no such
    maps. What images a model takes is found by trying small ones when it is built (`try_out`).

    Images are expected in RGB, normalised by `timm_pixel_stats`: give these as `pixel_mean` and
    `pixel_std` of the detector, and "RGB" as `image_format` of the data mappers.

    Args:
        name: of the architecture, as "mobilenetv2_100"; or of one of its weights, as
            "mobilenetv2_100.ra_in1k", whose layers are the same but for a few models.
        out_features: names of the maps to give, finest first; all that there are by default.
        norm: "FrozenBN" replaces each BatchNorm by Detectron2's `FrozenBatchNorm2d`, "SyncBN" by
            one that is synchronised over processes, "BN" keeps it trainable. None leaves the
            layers as timm builds them, which is the only choice for models with other norms.
        freeze_at: all up to the layers of "c<freeze_at>" are frozen, parameters and BatchNorms:
            2 is the stem and the first stage of a ResNet, as in Detectron2. 0 is none.
        model_args: more arguments for `timm.create_model`, for example `drop_path_rate`. A Swin
            takes images of any size with `strict_img_size=False`. Where a model takes images of
            one size only, `img_size=(H, W)` says which; smaller images are padded to it.

    Raises:
        ValueError: there is no such model or map, its maps make no pyramid of strides 2^i, it
            takes no images but those of one size, or it has no BatchNorm for `norm`. The message
            names the argument that helps, if one does.
        ImportError: timm is not installed.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] | None = None,
        norm: str | None = None,
        freeze_at: int = 0,
        model_args: Mapping | None = None,
    ):
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"Expected argument `norm` in {_NORMS}, but got {norm!r}")
        self.name, self.norm, self.freeze_at = name, norm, freeze_at
        if OmegaConf.is_config(model_args):
            model_args = OmegaConf.to_container(model_args, resolve=True)
        model_args = dict(model_args or {})
        fixed = {"pretrained", "checkpoint_path", "features_only", "out_indices"} & set(model_args)
        if fixed:
            raise ValueError(f"Expected argument `model_args` without {sorted(fixed)}")

        def build(args: Mapping) -> tuple[nn.Module, Maps]:
            return _build(name, out_features, args)

        model, maps = build(model_args)
        self._maps, self._out_features = maps, list(maps.names)
        info = model.feature_info
        available = map_names(name, info.reduction())
        self._out_feature_channels = dict(zip(available, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(available, info.reduction(), strict=True))
        trial = try_out(model, maps, model_args, build)
        self._divisor, self._image_size = trial.divisor, trial.image_size
        self.unused_parameters = frozenset(f"{PREFIX}.{key}" for key in trial.unused)
        for key in trial.unused:
            model.get_parameter(key).requires_grad = False
        if trial.unused:
            logger.info(
                f"{name}: {len(trial.unused)} parameters that the maps {self._out_features} do not "
                f"depend on are frozen, from {trial.unused[0]} to {trial.unused[-1]}"
            )
        setattr(self, PREFIX, model)
        if norm is not None:
            self._set_norm(norm)
        if freeze_at:
            self._freeze(available)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps (N, C, H / stride, W / stride) by name, finest first.

        H and W have to be multiples of the coarsest stride, as Detectron2's detectors pad them;
        to more than that, if the model needs it, they are padded here, and the maps cut.

        Args:
            x: images (N, 3, H, W).

        Raises:
            ValueError: an image is larger than the `img_size` of a model that takes one size only.
        """
        height, width = x.shape[2:]
        padded = self._pad(x)
        maps = self._maps(getattr(self, PREFIX), padded)
        if padded is x:
            return maps
        strides = self._out_feature_strides
        return {
            k: m[..., : -(-height // strides[k]), : -(-width // strides[k])]
            for k, m in maps.items()
        }

    def _pad(self, x: Tensor) -> Tensor:
        """Zeros below and to the right, as Detectron2's `ImageList` has them, where needed.

        That list does not do it alone: an FPN asks for multiples of its coarsest stride, whatever
        the backbone below it asks for, and Detectron2's `square_size` cuts a larger image.

        Raises:
            ValueError: an image is larger than the one size that the model takes.
        """
        height, width = x.shape[2:]
        if self._image_size is not None:
            bottom, right = (a - b for a, b in zip(self._image_size, x.shape[2:], strict=True))
            if bottom < 0 or right < 0:
                raise ValueError(
                    f"Expected images of at most {self._image_size} (H, W), the img_size that "
                    f"{self.name} is built for, but got {(height, width)}"
                )
        elif self._divisor > self._maps.strides[-1]:
            bottom, right = -height % self._divisor, -width % self._divisor
        else:
            return x
        return F.pad(x, (0, right, 0, bottom)) if bottom or right else x

    @property
    def size_divisibility(self) -> int:
        """What both sides have to be multiples of, in pixels: the coarsest stride, or more."""
        return self._divisor

    def _set_norm(self, norm: str) -> None:
        from timm.layers import convert_sync_batchnorm

        model = getattr(self, PREFIX)
        if not any(_is_batch_norm(m) for m in model.modules()):
            raise ValueError(
                f"Expected argument `norm` to be None, because {self.name} has no BatchNorm, but "
                f"got {norm!r}"
            )
        if norm == "FrozenBN":
            _freeze_batch_norms(model, [name for name, _ in model.named_modules()])
        elif norm == "SyncBN":
            setattr(self, PREFIX, convert_sync_batchnorm(model))

    def _freeze(self, available: list[str]) -> None:
        model, last = getattr(self, PREFIX), f"c{self.freeze_at}"
        modules = dict(model.named_modules())
        stage = None
        if last in available:
            # Wrapped in a list, a stage of a Sequential is called "stages_0" for "stages.0".
            stage = model.feature_info.module_name()[available.index(last)]
            stage = stage if stage in modules else stage.replace(".", "_")
        if stage not in modules:
            raise ValueError(
                f"Expected argument `freeze_at` to be 0 or i for one of the maps {available} of "
                f"{self.name} that ends a stage, but got {self.freeze_at}"
            )
        # Modules are registered in the order in which they run.
        names = list(modules)
        inner = [i for i, n in enumerate(names) if n == stage or n.startswith(f"{stage}.")]
        for name in names[: inner[-1] + 1]:
            for p in modules[name].parameters(recurse=False):
                p.requires_grad = False
        _freeze_batch_norms(model, names[: inner[-1] + 1])

    def extra_repr(self) -> str:
        return (
            f"name={self.name}, out_features={self._out_features}, norm={self.norm}, "
            f"freeze_at={self.freeze_at}"
        )


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """timm's BatchNorm with an activation in it, frozen.

    Detectron2's own conversion takes it for a BatchNorm2d and loses the activation.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, drop: nn.Module, act: nn.Module):
        super().__init__(num_features, eps)
        self.drop, self.act = drop, act

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.act(self.drop(super().forward(x)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_features}, eps={self.eps}, act={self.act!r})"


def _build(
    name: str, out_features: Sequence[str] | None, model_args: Mapping
) -> tuple[nn.Module, Maps]:
    """The model up to the last map in use, and its maps.

    Raises:
        ValueError: timm has no such model, or builds none with `model_args`; or no such maps.
    """
    check_name(name)
    try:
        model = create_features(name, **model_args)
    except Exception as e:  # an empty AssertionError, for example
        if not model_args:
            raise
        raise ValueError(
            f"Expected argument `model_args` that timm builds {name} with, but got "
            f"{dict(model_args)}: {one_line(e)}"
        ) from e
    available = map_names(name, model.feature_info.reduction())
    names = tuple(available if out_features is None else out_features)
    if not names or any(x not in available for x in names):
        raise ValueError(
            f"Expected argument `out_features` to be some of the maps {available} of {name}, "
            f"but got {list(names)}"
        )
    indices = tuple(available.index(x) for x in names)
    if list(indices) != sorted(set(indices)):
        raise ValueError(
            "Expected argument `out_features` to name each map once, finest first, but got "
            f"{list(names)}"
        )
    if indices[-1] < len(available) - 1:
        kept = model.feature_info.out_indices[: indices[-1] + 1]
        model = _up_to(name, model_args, kept)
    strides = model.feature_info.reduction()
    return model, Maps(
        model_name=name,
        names=names,
        indices=indices,
        strides=tuple(strides[i] for i in indices),
        # Of models for images in NHWC, as Swin; those with a forward of their own are in NCHW.
        channels_last=str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"),
        in_channels=model_args.get("in_chans", 3),
        usual_side=usual_side(name, model_args.get("img_size")),
    )


def _up_to(name: str, model_args: dict, out_indices: tuple[int, ...]) -> nn.Module:
    """The model without what follows its last map, so that no parameter is without a gradient."""
    model = create_features(name, out_indices=out_indices, **model_args)
    # timm's own wrapper drops what follows; EfficientNets and MobileNets keep all of their blocks.
    parent, _, index = model.feature_info.module_name()[-1].rpartition(".")
    blocks = getattr(model, parent, None)
    if isinstance(blocks, nn.Sequential) and index.isdecimal():
        del blocks[int(index) + 1 :]
    return model


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))


def _freeze_batch_norms(model: nn.Module, names: list[str]) -> None:
    """Replace those BatchNorms of `model` that are among `names`, in place."""
    for name, module in list(model.named_modules()):
        if name not in names or not _is_batch_norm(module):
            continue
        frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        if hasattr(module, "act"):
            plain = frozen
            frozen = FrozenBatchNormAct2d(
                plain.num_features, plain.eps, drop=module.drop, act=module.act
            )
            for buffer in ("weight", "bias", "running_mean", "running_var"):
                setattr(frozen, buffer, getattr(plain, buffer))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, frozen)
