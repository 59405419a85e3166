"""Whether the levels that a detector is told to use are those that its backbone gives."""

from collections.abc import Mapping, Sequence

from torch import nn

from iou_balanced.modeling.ssd.default_boxes import DefaultBoxGenerator

from .errors import UserError

__all__ = ["check_levels"]

# Part of a detector -> its argument that names levels, and the one that has numbers for them.
_PARTS = {
    "": ("head_in_features", "anchor_generator.strides"),
    "proposal_generator": ("in_features", "anchor_generator.strides"),
    "roi_heads": ("box_in_features", "box_pooler.scales"),
}


def check_levels(model: nn.Module) -> None:
    """Refuse levels without a map, and boxes whose distances are not those of the map's cells.

    The first would fail in the first iteration, and the second train for other places than those
    where the features are. A backbone of the user's own that does not tell its levels is left
    alone, and so are SSD's default boxes, whose last cells have no width of their own.

    Args:
        model: a detector of Detectron2 or of this package; of others, what they call alike.

    Raises:
        UserError: names the key of the LazyConfig, what came and what would fit.
    """
    cells = _cells(model)
    for part, (argument, numbers) in _PARTS.items() if cells else ():
        module = getattr(model, part, None) if part else model
        levels = getattr(module, argument, None)
        if levels is None or isinstance(levels, str):
            continue
        prefix = f"model.{part}." if part else "model."
        missing = [name for name in levels if name not in cells]
        if missing:
            raise UserError(
                f"{prefix}{argument}={_list(levels)}: the backbone gives no {missing[0]}: give "
                f"some of {', '.join(cells)}"
            )
        _check_strides(module, f"{prefix}{numbers}", levels, [cells[name] for name in levels])


def _check_strides(
    module: nn.Module, key: str, levels: Sequence[str], cells: Sequence[int | None]
) -> None:
    found = _strides(module)
    if found is None or None in cells or found == list(cells):
        return
    is_scale = key.endswith("scales")
    shown = _list(f"1/{x:g}" if is_scale else f"{x:g}" for x in found)
    right = _list(f"1/{x}" if is_scale else x for x in cells)
    raise UserError(
        f"{key}={shown}: the levels {_list(levels)} have cells of {_list(cells)} pixels: give "
        f"{right}, or other levels"
    )


def _cells(model: nn.Module) -> Mapping[str, int | None]:
    """Level -> width of its cells in pixels, None where it is not known."""
    shapes = getattr(getattr(model, "backbone", None), "output_shape", dict)()
    if not isinstance(shapes, Mapping):
        return {}
    return {name: getattr(shape, "stride", None) for name, shape in shapes.items()}


def _strides(module: nn.Module) -> list[float] | None:
    """In pixels, of the anchors or of what the pooler takes a level for."""
    generator = getattr(module, "anchor_generator", None)
    if generator is not None:
        strides = getattr(generator, "strides", None)
        return None if isinstance(generator, DefaultBoxGenerator) or not strides else list(strides)
    poolers = getattr(getattr(module, "box_pooler", None), "level_poolers", ())
    return [1 / pooler.spatial_scale for pooler in poolers] or None


def _list(values) -> str:
    return f"[{','.join(map(str, values))}]"
