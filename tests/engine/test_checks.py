"""What a config is looked at for before a training starts: canvas and normalisation of images."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data.transforms import RandomContrast

from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checks import check_accumulation, check_config, warn_of_other_images
from iou_balanced.losses import BalanceOriented

from .helpers import ROOT

CENTERNET = str(ROOT / "configs/COCO/centernet_R_18_140e.py")
AUGMENTATIONS = "dataloader.test.mapper.augmentations"


def load(*overrides):
    # Data sets without names: what is looked at comes before them.
    own = "torch.utils.data.TensorDataset"
    sets = [f"dataloader.{split}.dataset._target_={own}" for split in ("train", "test")]
    return load_config(CENTERNET, ["train.device=cpu", *sets, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.canvas.divisor=64",),
        ("model.canvas=null", f"{AUGMENTATIONS}=[]"),
        ("model.canvas=null", f"{AUGMENTATIONS}=[{{_target_:detectron2.data.transforms.NoOp}}]"),
    ],
)
def test_test_images_that_the_model_knows(overrides):
    check_config(load(*overrides))


def test_what_does_not_move_the_pixels_may_come_before():
    cfg = load()
    contrast = L(RandomContrast)(intensity_min=1, intensity_max=1)
    cfg.dataloader.test.mapper.augmentations = [contrast, "${model.canvas}"]
    check_config(cfg)


def own_mapper(x):
    return x


@pytest.mark.parametrize("mapper", [own_mapper, L(own_mapper)(x=1), None])
def test_a_mapper_of_ones_own_is_left_alone(mapper):
    cfg = load()
    cfg.dataloader.test.mapper = mapper
    check_config(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.canvas=null", rf"model\.canvas=null, and {AUGMENTATIONS} has it: .*=\[\]"),
        (f"{AUGMENTATIONS}=[]", rf"{AUGMENTATIONS} has to end with \$\{{model\.canvas\}}, because"),
        (
            f"{AUGMENTATIONS}=[{{_target_:iou_balanced.data.CenterPad,divisor:64}}]",
            r"has to end with \$\{model\.canvas\}, because",
        ),
    ],
)
@pytest.mark.parametrize("eval_only", [False, True])
def test_test_images_that_it_does_not(override, message, eval_only):
    with pytest.raises(UserError, match=message):
        check_config(load(override), eval_only=eval_only)


def warnings(caplog, *overrides):
    caplog.clear()
    warn_of_other_images(load(*overrides))
    return [record.getMessage() for record in caplog.records]


def test_images_that_timms_weights_are_not_for(caplog):
    assert warnings(caplog) == []
    # This model's weights are for values in [0, 1].
    other = "train.init_checkpoint=timm://mobilenetv3_large_100.miil_in21k"
    (message,) = warnings(caplog, other, "model.input_format=BGR")
    assert "mobilenetv3_large_100.miil_in21k" in message
    assert "set model.input_format to 'RGB', model.pixel_mean to [0.0, 0.0, 0.0] and" in message
    assert "model.pixel_std to [255.0, 255.0, 255.0]" in message
    # From scratch, or from one's own weights, any images will do.
    for path in ("", "weights.pth", "timm_weights.pth"):
        assert warnings(caplog, f"train.init_checkpoint={path}", "model.input_format=BGR") == []


def test_class_weights_that_micro_batches_cannot_know():
    """Samples of an R-CNN, counted over a batch; a dense detector counts its positives first."""
    counts = L(BalanceOriented)(schedule=None, class_counts=[1] * 80, counted="locations")
    cfg = load("train.accumulation_steps=2")
    model = torch.nn.Module()
    model.class_balance = instantiate({**counts, "num_classes": 80, "count_over": "batch"})
    message = r"^model\.class_balance: Expected counted='instances' or count_over='image'"
    with pytest.raises(UserError, match=message):
        check_accumulation(cfg, model)
    model.class_balance.count_over = "image"
    check_accumulation(cfg, model)
    model.class_balance.count_over, cfg.train.accumulation_steps = "batch", 1
    check_accumulation(cfg, model)
