"""What fails when the model meets an image: one line with the override; levels: before that."""

import pytest

from iou_balanced.engine import UserError, main
from iou_balanced.engine.blame import _failure, blamed_for
from iou_balanced.engine.trial import try_out

from .helpers import BASELINE, CONFIG, ROOT, make_args, tiny_config

DIGITS = ROOT / "configs/Digits"
OTHERS = ["train.device=cpu", "optimizer.lr=0.001", "train.max_iter=7"]


def config(name):
    return str(DIGITS / f"{name}.py")


@pytest.mark.parametrize("path", sorted(DIGITS.glob("*.py")), ids=lambda path: path.stem)
def test_our_configs_pass(path):
    try_out(tiny_config(config_file=str(path)))


@pytest.mark.parametrize(
    ("name", "override", "reason"),
    [
        ("retinanet_small", "model.backbone.out_channels=32", "expected input"),
        ("retinanet_small", "model.backbone.bottom_up.stages.1.out_channels=48", "expected input"),
        ("retinanet_small", "model.backbone.bottom_up.stem.in_channels=1", "to have 1 channels"),
        ("retinanet_small", "model.anchor_generator.aspect_ratios=[[1.0]]", "`gt_labels`"),
        ("retinanet_small", "model.head.num_anchors=5", "IndexError"),
        ("retinanet_small", "model.head.num_classes=5", "invalid for input of size"),
        ("fcos_small_long_tail_bofl", "model.head.num_classes=12", "invalid for input of size"),
        ("ssd_small", "model.backbone.out_channels=[64]", "to have 96 channels"),
        ("faster_rcnn_small", "model.roi_heads.box_pooler.output_size=7", "multiplied"),
        ("faster_rcnn_small", "model.proposal_generator.head.num_anchors=9", "IndexError"),
        ("faster_rcnn_small", "model.proposal_generator.box_reg_loss_type=huh", "'huh'"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_override_is_named(name, override, reason, order):
    overrides = [OTHERS[0], override, *OTHERS[1:]][::order]
    failure = _failure(config(name), overrides, step=try_out, eval_only=False)
    message = str(blamed_for(failure, config(name), overrides))
    key, _, value = override.partition("=")
    assert message.startswith(f"{key}={value}: the run failed because of it (")
    assert reason in message and "\n" not in message


def test_two_that_do_not_fit_together():
    """Either alone is wrong in another way, or not at all; the first is named."""
    overrides = ["model.head.num_anchors=3", "model.head.num_classes=5"]
    failure = _failure(BASELINE, overrides, step=try_out, eval_only=False)
    assert str(blamed_for(failure, BASELINE, overrides)).startswith("model.head.num_")


def test_two_that_fail_alike():
    overrides = ["model.backbone.out_channels=32", "model.head.num_classes=5"]
    failure = _failure(BASELINE, overrides, step=try_out, eval_only=False)
    assert str(blamed_for(failure, BASELINE, overrides)).startswith("model.backbone.out_channels")


@pytest.mark.parametrize("error", [RuntimeError("another"), KeyError("p9"), ValueError("of data")])
def test_a_failure_of_another_place_is_left_alone(error):
    try:
        raise error
    except type(error) as e:
        assert blamed_for(e, BASELINE, ["model.backbone.out_channels=32"]) is None


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        (
            "retinanet_small",
            "model.head_in_features=[p3,p4,p9]",
            "model.head_in_features=[p3,p4,p9]: the backbone gives no p9: give some of p3, p4, p5",
        ),
        (
            "retinanet_small",
            "model.anchor_generator.strides=[32,16,8]",
            "model.anchor_generator.strides=[32,16,8]: the levels [p3,p4,p5] have cells of "
            "[8,16,32] pixels: give [8,16,32], or other levels",
        ),
        (
            "faster_rcnn_small",
            "model.proposal_generator.in_features=[p3,p4]",
            "model.proposal_generator.anchor_generator.strides=[8,16,32]: the levels [p3,p4] have "
            "cells of [8,16] pixels: give [8,16], or other levels",
        ),
        (
            "faster_rcnn_small",
            "model.roi_heads.box_in_features=[p3,p4]",
            "model.roi_heads.box_pooler.scales=[1/8,1/16,1/32]: the levels [p3,p4] have cells of "
            "[8,16] pixels: give [1/8,1/16], or other levels",
        ),
        (
            "ssd_small",
            "model.head_in_features=[res3,res4,res5,extra7]",
            "model.head_in_features=[res3,res4,res5,extra7]: the backbone gives no extra7: give "
            "some of res3, res4, res5, extra1",
        ),
    ],
)
def test_levels(tmp_path, name, override, message):
    with pytest.raises(UserError) as e:
        main(make_args(config(name), opts=[override, f"train.output_dir={tmp_path}"]))
    assert str(e.value) in (message, f"{override}: {message}")


@pytest.mark.parametrize("workers", [0, 1])
def test_main(tmp_path, workers, capsys):
    """One line; the traceback is in the log file."""
    opts = ["model.head.num_classes=5", f"dataloader.train.num_workers={workers}"]
    with pytest.raises(UserError, match=r"^model.head.num_classes=5: the run failed because of it"):
        main(make_args(CONFIG, opts=[*opts, f"train.output_dir={tmp_path}"]))
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert not list(tmp_path.glob("*.pth"))


class FailingMapper:
    """A mapper that takes no image."""

    def __init__(self, is_train, image_format):
        pass

    def __call__(self, dataset_dict):
        raise KeyError("no such thing")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_mapper(tmp_path, workers):
    override = f"dataloader.train.mapper._target_={__name__}.FailingMapper"
    opts = [override, f"dataloader.train.num_workers={workers}"]
    with pytest.raises(UserError, match=rf"^{override}: the run failed because of it .*no such"):
        main(make_args(BASELINE, opts=[*opts, f"train.output_dir={tmp_path}"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataloader.train.mapper.image_format=L", "give BGR, as model.input_format"),
        ("dataloader.test.mapper.image_format=RGB", "give BGR, as model.input_format"),
        ("dataloader.train.sampler=5", "give a call, a LazyCall of a function or class, or null"),
    ],
)
def test_what_would_be_taken_silently(override, message):
    from iou_balanced.engine.checks import check_config

    with pytest.raises(UserError) as e:
        check_config(tiny_config(override, config_file=BASELINE))
    assert str(e.value).startswith(f"{override}: {message}")
