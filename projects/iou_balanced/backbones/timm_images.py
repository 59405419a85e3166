"""The images that timm's weights are for."""

import math
from collections.abc import Sequence

from .timm_create import timm_pixel_stats


def timm_images_warning(
    name: str,
    *,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    input_format: str,
    keys: tuple[str, str, str],
) -> str | None:
    """One sentence where a config's images are not those that timm's weights of a model are for.

    Args:
        name: of the model, as `timm_pixel_stats` takes it.
        pixel_mean: of the config; a difference of up to 1% counts as rounding.
        pixel_std: of the config, likewise.
        input_format: "RGB" or another order.
        keys: of the config, for format, mean and deviation, as the sentence is to name them.

    Returns:
        None where they agree, or timm has no weights of this model.
    """
    try:
        mean, std = timm_pixel_stats(name)
    except ValueError:
        return None
    wrong = [] if input_format == "RGB" else [f"{keys[0]} to 'RGB'"]
    for key, ours, theirs in ((keys[1], pixel_mean, mean), (keys[2], pixel_std, std)):
        if len(ours) != len(theirs) or not all(
            math.isclose(a, b, rel_tol=0.01) for a, b in zip(ours, theirs, strict=True)
        ):
            wrong.append(f"{key} to {theirs}")
    if not wrong:
        return None
    *more, last = wrong
    return f"timm's weights of {name} are for other images than this config's: set " + (
        f"{', '.join(more)} and {last}" if more else last
    )
