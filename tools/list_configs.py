#!/usr/bin/env python
"""Print the table of configs in Markdown, from the files themselves.

tools/list_configs.py                         prints it
tools/list_configs.py --write docs/configs.md  puts it between the two marker lines
tools/list_configs.py --check docs/configs.md  exits 1 where the file's table is another one

--write and --check fill the tables of docs/reproduction.md too, from the records of the papers.
"""

import argparse
import re
import sys
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from iou_balanced.reproduction import markdown

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
HEADER = (
    "Config",
    "Model",
    "Data",
    "Scale",
    "eta",
    "lam",
    "w_loc",
    "Class weights",
    "Schedule",
    "Paper",
)
# Images of training sets that are not made here: those with a box for COCO, all of the others.
TRAIN_IMAGES = {
    "coco_2017_train": 117_266,
    "VOC 07+12 trainval": 16_551,
    "Cityscapes train": 2_975,
    "COCO-LT train": 99_411,
}
COCO_TRAIN_WITH_EMPTY = 118_287  # where filter_empty is off
DATA_NAMES = {"cityscapes": "Cityscapes", "voc": "VOC", "coco_lt": "COCO-LT"}


def describe(file: Path) -> tuple[str, ...]:
    """The cells of HEADER for one config; "-" for what it does not have."""
    cfg = LazyConfig.load(str(file))
    losses = _loss_node(cfg.model)
    cls_loss, box_loss = losses.get("cls_loss") or {}, losses.get("box_loss") or {}
    cells = (
        f"[{_path(file)}](../configs/{file.relative_to(CONFIGS).as_posix()})",
        " ".join(x for x in (_detector(cfg.model), _backbone(cfg.model)) if x),
        _data(cfg),
        _scale(cfg),
        cls_loss.get("eta"),
        box_loss.get("lam"),
        _weight(box_loss),
        _class_weights(losses.get("class_balance")),
        _schedule(cfg),
        markdown.tables_of_config(_path(file)),
    )
    return tuple("-" if cell is None else str(cell) for cell in cells)


def _loss_node(model: DictConfig) -> DictConfig:
    """The part of the model that holds the losses: itself, or the box head of an R-CNN."""
    roi_heads = model.get("roi_heads")
    if roi_heads is None:
        return model
    # Cascade R-CNN has one for each stage, with the same losses.
    return roi_heads.box_predictors[0] if "box_predictors" in roi_heads else roi_heads.box_predictor


def _weight(box_loss) -> str | None:
    return "Eq. 7" if box_loss.get("normalize") else box_loss.get("weight")


def _class_weights(class_balance) -> str | None:
    """ "BOFL, eta 0.8, 5%": eta of the batch-wise balancing, and an intensity below 1."""
    if not class_balance:
        return None
    name = _name(class_balance._target_).replace("BalanceOriented", "BOFL")
    parts = [name] + ([f"eta {class_balance.eta}"] if "eta" in class_balance else [])
    intensity = class_balance.get("intensity", 1)
    return ", ".join([*parts, *([f"{intensity:.0%}"] if intensity != 1 else [])])


def _path(file: Path) -> str:
    """ "VOC/ssd300": some names occur in several folders."""
    return file.relative_to(CONFIGS).with_suffix("").as_posix()


def _name(target) -> str:
    return target.rsplit(".", 1)[-1] if isinstance(target, str) else target.__name__


def _detector(model: DictConfig) -> str:
    name = _name(model._target_).removeprefix("Balanced")
    if name != "GeneralizedRCNN":
        return name
    cascade = "Cascade " if "box_predictors" in model.roi_heads else ""
    return f"{cascade}{'Mask' if model.roi_heads.get('mask_head') else 'Faster'} R-CNN"


def _backbone(model: DictConfig) -> str | None:
    """The depth as in the files' names; a ResNet of one's own by the widths of its stages."""
    bottom_up = OmegaConf.select(model, "backbone.bottom_up") or model.get("backbone")
    stages = bottom_up.get("stages") if bottom_up is not None else None
    if OmegaConf.is_list(stages):
        return f"ResNet {'-'.join(str(stage.out_channels) for stage in stages)}"
    if stages is None or "depth" not in stages:
        if bottom_up is None:
            return None
        name = _name(bottom_up._target_)
        if name == "TimmBackbone":  # "mobilenetv2_100.ra_in1k": the architecture, then the weights
            return bottom_up.name.partition(".")[0]
        return {"SSDVGG": "VGG16"}.get(name, name)
    if "num_groups" in stages and stages.num_groups > 1:
        return f"X-{stages.depth}-{stages.num_groups}x{stages.width_per_group}d"
    return f"R-{stages.depth}"


def _data(cfg: DictConfig) -> str:
    train, test = (_split(cfg.dataloader[split].dataset.names) for split in ("train", "test"))
    shared = 0
    while shared < min(len(train), len(test)) and train[shared] == test[shared]:
        shared += 1
    # "COCO 2017 train / val": what both have in common stands once.
    return f"{' '.join(train)} / {' '.join(test[shared:] or test)}"


def _split(names) -> list[str]:
    if isinstance(names, DictConfig):  # a call of a register function
        called = str(names.get("name") or _name(names._target_).removeprefix("register_"))
        years = "+".join(str(year)[-2:] for year in names.get("years", ()))
        tail = "long-tailed" if names.get("long_tail") else None
        parts = [DATA_NAMES.get(called, called), tail, years, names.get("split")]
        return [part for part in parts if part]
    if not isinstance(names, str):
        return [" + ".join(names)]
    return names.replace("coco_", "COCO ").replace("_", " ").split()


def _scale(cfg: DictConfig) -> str | None:
    """[short edge, long edge] of the training images, or their side, in pixels.

    After a slash that of the test images, where it is not of the same kind.
    """
    for augmentation in cfg.dataloader.train.mapper.augmentations:
        if "short_edge_length" in augmentation:
            edge = augmentation.short_edge_length
            edge = edge if isinstance(edge, int) else "-".join(map(str, edge))
            return f"[{edge}, {augmentation.max_size}]"
        if "shape" in augmentation:
            return str(augmentation.shape[0])
        if "size" in augmentation:  # CenterNet's crops
            padded = not cfg.model.canvas.get("size")  # testing at the image's own resolution
            return f"{augmentation.size[0]} / original" if padded else str(augmentation.size[0])
    names = cfg.dataloader.train.dataset.names
    return names.get("image_size") if isinstance(names, DictConfig) else None


def _schedule(cfg: DictConfig) -> str:
    names = cfg.dataloader.train.dataset.names
    made = names.get("num_images") if isinstance(names, DictConfig) else None
    images = made or TRAIN_IMAGES.get(names if isinstance(names, str) else " ".join(_split(names)))
    if names == "coco_2017_train" and not cfg.dataloader.train.dataset.get("filter_empty", True):
        images = COCO_TRAIN_WITH_EMPTY
    if not images:
        return f"{cfg.train.max_iter:,} iterations"
    epochs = cfg.train.max_iter * cfg.dataloader.train.total_batch_size / images
    return f"{epochs:.3g} epochs"


def _order(file: Path) -> list:
    """As a person sorts: R_18 before R_101, a baseline before its variants."""
    parts = re.split(r"(\d+)", str(file.relative_to(CONFIGS).with_suffix("")))
    return [int(x) if x.isdigit() else x for x in parts]


def table() -> str:
    """The table in Markdown, without a line break at its end."""
    files = [f for f in CONFIGS.glob("*/*.py") if f.parent.name != "common"]
    rows = [HEADER, ("---",) * len(HEADER)]
    rows += [describe(file) for file in sorted(files, key=_order)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# What stands between the marker lines of each name.
BLOCKS = {
    "configs": lambda: table(),
    "iou": lambda: markdown.paper_tables("iou"),
    "bofl": lambda: markdown.paper_tables("bofl"),
    "figures": markdown.figures,
    "variants": markdown.variants,
}


def fill(text: str) -> str:
    """`text` with the tables of today between its marker lines.

    Raises:
        ValueError: it has none, or those of a table are not one pair.
    """
    lines = text.split("\n")
    names = [name for name in BLOCKS if {x.format(name) for x in (BEGIN, END)} & set(lines)]
    for name in names or ["configs"]:
        text = replace(text, name)
    return text


def replace(text: str, name: str) -> str:
    """`text` with the table of that name between its marker lines.

    Raises:
        ValueError: the markers are missing, or there is more than one pair.
    """
    begin, end = BEGIN.format(name), END.format(name)
    lines = text.split("\n")
    if lines.count(begin) != 1 or lines.count(end) != 1 or lines.index(begin) > lines.index(end):
        raise ValueError(f"Expected one line {begin} and after it one line {end}")
    # A blank line on either side, or Markdown takes the comment and the table for one block.
    middle = ["", BLOCKS[name](), ""]
    return "\n".join([*lines[: lines.index(begin) + 1], *middle, *lines[lines.index(end) :]])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    file = args.write or args.check
    if file is None:
        print(table())
        return
    try:
        text = file.read_text(encoding="utf-8")
        new = fill(text)
    except (OSError, ValueError) as e:
        sys.exit(f"{file}: {e}")
    if args.write:
        if new != text:
            file.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit(f"{file}: a table is stale; tools/list_configs.py --write {file}")


if __name__ == "__main__":
    main()
