"""timm's models by name, with errors that say what timm has instead."""

import difflib
from collections.abc import Sequence

from torch import nn


def timm_pixel_stats(name: str) -> tuple[list[float], list[float]]:
    """The mean and standard deviation that a timm model's images are normalised by.

    Args:
        name: as "mobilenetv2_100" for the default weights, or with a tag, as
            "mobilenetv2_100.ra_in1k".

    Returns:
        Three numbers each, in RGB order, for images in 0..255.

    Raises:
        ValueError: there is no such model, or no such weights of it.
        ImportError: timm is not installed.
    """
    known = _import_timm(name).get_pretrained_cfg(check_name(name))
    if known is None or not known.has_weights:
        raise ValueError(f"timm knows no weights of {name!r}, and so no mean and deviation")
    # 0.485 * 255 is 123.675, as other frameworks write it, and not 123.67499999999999.
    mean, std = ([round(x * 255, 6) for x in values] for values in (known.mean, known.std))
    return mean, std


def create_features(name: str, **kwargs) -> nn.Module:
    """`timm.create_model` with `features_only`; random weights unless `pretrained=True`.

    Raises:
        ValueError: there is no such model.
        ImportError: timm is not installed.
    """
    timm = _import_timm(name)
    check_name(name)
    return timm.create_model(name, **{"pretrained": False, **kwargs}, features_only=True)


def usual_side(name: str, img_size: int | Sequence[int] | None = None) -> int:
    """The longer side of the images that a model is built for, in pixels.

    Args:
        name: of the model.
        img_size: that it is built with; timm's own for the model's weights where None.
    """
    if img_size is None:
        known = _import_timm(name).get_pretrained_cfg(name)
        img_size = 224 if known is None else known.input_size[1:]
    return img_size if isinstance(img_size, int) else max(img_size)


def check_name(name: str) -> str:
    """`name` itself.

    Raises:
        ValueError: timm has no such model, or the model no weights of this tag.
        ImportError: timm is not installed.
    """
    timm = _import_timm(name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise ValueError(f"timm {timm.__version__} has no model {name!r}{_did_you_mean(close)}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True)
    if tag and name not in tagged:
        close = difflib.get_close_matches(name, tagged, n=3, cutoff=0.0)
        raise ValueError(f"timm {timm.__version__} has no weights {name!r}{_did_you_mean(close)}")
    return name


def _did_you_mean(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _import_timm(name: str):
    try:
        import timm
    except ImportError as e:
        raise ImportError(
            f"the timm model {name} needs timm: pip install timm, which the extra `timm` of "
            "iou_balanced does too"
        ) from e
    return timm
