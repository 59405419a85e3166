"""What fails because of an override is one line that names it; the rest keeps its traceback."""

import pytest
from detectron2.config import instantiate

from iou_balanced.engine import UserError, main
from iou_balanced.engine.blame import blamed, naming_overrides

from .helpers import CONFIG, make_args

NORM = "model.backbone.bottom_up.stem.norm=abc"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (NORM, "KeyError: 'abc'"),
        ("model.head.conv_dims=[]", "ConfigIndexError: list index out of range"),
        ("model.backbone.in_features=[res3,nowhere]", "KeyError: 'nowhere'"),
        (
            "model.backbone.top_block=5",
            "AttributeError: 'int' object has no attribute 'num_levels'",
        ),
        ("+model.head.foo=3", "TypeError: RetinaNetHead.__init__() got an unexpected keyword arg"),
        ("+optimizer.foo=3", "TypeError: AdamW.__init__() got an unexpected keyword argument"),
        ("lr_multiplier={a: 1}", "TypeError: WarmupParamScheduler.__init__() got an unexpected"),
        ("+dataloader.train.mapper.foo=1", "TypeError: DatasetMapper.__init__() got an unexpected"),
    ],
)
def test_the_override_is_named(override, reason):
    others = ["train.device=cpu", "optimizer.lr=0.1"]
    error = blamed(CONFIG, [others[0], override, others[1]])
    key, _, value = override.lstrip("+").partition("=")
    assert str(error).startswith(f"{key}={value}: nothing can be built with it ({reason}")
    assert "\n" not in str(error)


def test_words_of_ours_are_kept():
    error = blamed(CONFIG, ["train.device=cpu", "model.cls_loss=abc"])
    message = "model.cls_loss=abc: Expected argument `cls_loss` to be a module, but got 'abc'"
    assert str(error) == message


def test_the_first_of_two():
    assert str(blamed(CONFIG, [NORM, "model.head.conv_dims=[]"])).startswith("model.backbone.bott")


def test_what_can_be_built_is_nobodys_fault():
    assert blamed(CONFIG, ["train.device=cpu"]) is None


@pytest.mark.parametrize("eval_only", [False, True])
def test_main(tmp_path, eval_only):
    args = make_args(opts=[NORM, f"train.output_dir={tmp_path}"], eval_only=eval_only)
    with pytest.raises(UserError, match=rf"^{NORM}: nothing can be built with it \(KeyError"):
        main(args)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), UserError("no such run")])
def test_another_error_keeps_its_traceback(error):
    @naming_overrides
    def fails(args):
        raise error

    with pytest.raises(type(error)) as e:
        fails(make_args())
    assert e.value is error


def test_a_config_that_is_wrong_without_any_override(tmp_path):
    """Its author's mistake: the traceback helps."""
    path = tmp_path / "c.py"
    path.write_text(
        "from detectron2.config import LazyConfig\n"
        f"c = LazyConfig.load({CONFIG!r})\n"
        "model, dataloader, optimizer = c.model, c.dataloader, c.optimizer\n"
        "lr_multiplier, train = c.lr_multiplier, c.train\n"
        "model.backbone.top_block = 5\n"
    )
    assert blamed(str(path), ["train.device=cpu"]) is None
    with pytest.raises(AttributeError):
        from iou_balanced.engine import load_config

        instantiate(load_config(str(path), ["train.device=cpu"]).model)


@pytest.mark.parametrize("opts", [["model.head.prior=1"], ["no equals sign"]])
def test_overrides_that_cannot_be_read(opts):
    """The error is said as it came."""
    with pytest.raises(UserError, match=r"^(unknown key|cannot read the override)"):
        main(make_args(opts=opts))


PHOTOS = "configs/Photos/retinanet_lite0.py"
NEEDED = ["datasets.train.root=photos", "model.num_classes=3"]


def test_an_override_that_the_config_needs_is_not_to_blame():
    """Without it nothing is built either, but for another reason."""
    other = "model.backbone.bottom_up.name=mobilnetv3"
    error = blamed(PHOTOS, [*NEEDED, other])
    assert str(error).startswith(f"{other}: model.backbone.bottom_up: timm ")


def test_a_target_whose_arguments_came_along():
    target = "model.class_balance._target_=iou_balanced.losses.BalanceOriented"
    error = blamed(CONFIG, ["train.device=cpu", target, "model.class_balance.intensity=0.1"])
    assert str(error).startswith(f"{target}: nothing can be built with it (TypeError")
    assert "'schedule'" in str(error)
    # And where it is one of them that is wrong.
    target, wrong = target.replace("BalanceOriented", "ClassBalanced"), "model.class_balance.beta=2"
    others = ["model.class_balance.intensity=0.1", target]
    assert str(blamed(CONFIG, [*others, wrong])).startswith("model.class_balance.beta=2: Expected")


@pytest.mark.parametrize("eval_only", [False, True])
def test_a_backend_in_the_environment(tmp_path, monkeypatch, eval_only):
    """One line, before anything is read."""
    monkeypatch.setenv("IOU_BALANCED_BACKEND", "foo")
    args = make_args(opts=[f"train.output_dir={tmp_path}"], eval_only=eval_only)
    with pytest.raises(UserError, match=r"IOU_BALANCED_BACKEND to be one of .* got 'foo'"):
        main(args)
