"""What a config is looked at for before a training starts: canvas and normalisation of images."""

import pytest

from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checks import check_config, warn_of_other_images

from .helpers import ROOT

CENTERNET = str(ROOT / "configs/COCO/centernet_R_18_140e.py")
AUGMENTATIONS = "dataloader.test.mapper.augmentations"


def load(*overrides):
    # Without data sets: what is looked at comes before them.
    names = [f"dataloader.{split}.dataset.names=null" for split in ("train", "test")]
    return load_config(CENTERNET, ["train.device=cpu", *names, *overrides])


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.canvas=null", rf"model\.canvas=null, and {AUGMENTATIONS} has it: .*=\[\]"),
        (f"{AUGMENTATIONS}=[]", rf"{AUGMENTATIONS} has to be \[\$\{{model\.canvas\}}\] and"),
        (
            f"{AUGMENTATIONS}=[{{_target_:iou_balanced.data.CenterPad,divisor:64}}]",
            r"has to be \[\$\{model\.canvas\}\] and nothing else",
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
