import copy

import pytest
from detectron2.config import instantiate
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, apply_overrides, load_config
from iou_balanced.engine.checks import instantiate_model
from iou_balanced.losses import ClassBalanced, CorrelationLoss, VarifocalLoss

from .helpers import BASELINE, CONFIG, ROOT


@pytest.fixture
def cfg():
    return load_config(CONFIG, [])


def test_an_existing_key_is_changed(cfg):
    apply_overrides(cfg, ["model.cls_loss.eta=2.0", "train.amp.enabled=True"])
    assert cfg.model.cls_loss.eta == 2.0
    assert cfg.train.amp.enabled is True


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.cls_loss.etta=2", "model.cls_loss.eta"),
        ("model.box_loss.lamb=2", "model.box_loss.lam"),
        ("optimzer.lr=0.1", "optimizer.lr"),
        ("train.max_iters=3", "train.max_iter"),
        ("lr=0.1", "optimizer.lr"),
        ("train.clip_grad.max_nrom=1", "train.clip_grad.max_norm"),
        # Not in the config, but an argument of the target.
        ("model.test_nms_tresh=0.6", "model.test_nms_thresh"),
    ],
)
def test_a_mistyped_key_names_the_nearest_one(cfg, override, nearest):
    with pytest.raises(UserError, match=rf"did you mean {nearest}\?"):
        apply_overrides(cfg, [override])


def test_a_key_that_the_target_accepts_may_be_given(cfg):
    assert "test_nms_thresh" not in cfg.model
    apply_overrides(cfg, ["model.test_nms_thresh=0.6", "train.ddp.static_graph=True"])
    assert cfg.model.test_nms_thresh == 0.6
    assert cfg.train.ddp.static_graph is True


def test_a_key_that_the_target_refuses_is_an_error(cfg):
    # The stock detector's argument: it would have no effect, because the loss holds alpha now.
    with pytest.raises(UserError, match=r"unknown key model\.focal_loss_alpha"):
        apply_overrides(cfg, ["model.focal_loss_alpha=0.5"])


def test_plus_adds_any_key(cfg):
    apply_overrides(cfg, ["+train.note=mine"])
    assert cfg.train.note == "mine"


def test_a_call_replaces_the_name_of_a_data_set_in_any_order():
    cfg = load_config(str(ROOT / "configs/COCO/retinanet_R_50_FPN_1x.py"), [])
    apply_overrides(
        cfg,
        [
            "datasets.train.root=photos",
            "datasets.train.split=train",
            "datasets.train._target_=iou_balanced.data.register_voc_dir",
        ],
    )
    assert cfg.dataloader.train.dataset.names == {
        "_target_": "iou_balanced.data.register_voc_dir",
        "root": "photos",
        "split": "train",
    }


def test_a_new_target_keeps_only_what_it_accepts():
    cfg = load_config(BASELINE, ["datasets.train._target_=iou_balanced.data.register_voc_dir"])
    assert set(cfg.datasets.train) == {"_target_", "split"}  # image_size is none of its arguments


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("retinanet_small", "model.class_balance"),
        ("centernet_small", "model.class_balance"),
        ("faster_rcnn_small", "model.roi_heads.box_predictor.class_balance"),
    ],
)
def test_a_call_that_needs_the_number_of_classes_gets_the_models(config, key):
    cfg = load_config(
        str(ROOT / f"configs/Digits/{config}.py"),
        [f"{key}.power=0.5", f"{key}._target_=iou_balanced.losses.ClassBalanced"],
    )
    model = instantiate(cfg.model)
    (made,) = [x for x in model.modules() if isinstance(x, ClassBalanced)]
    assert (made.num_classes, made.power) == (10, 0.5)
    count = "model.roi_heads.num_classes" if "roi_heads" in key else "model.num_classes"
    apply_overrides(cfg, [f"{count}=4"])
    assert OmegaConf.select(cfg, f"{key}.num_classes") == 4
    apply_overrides(cfg, [f"{key}.num_classes=7"])
    assert OmegaConf.select(cfg, f"{key}.num_classes") == 7


def test_the_number_of_classes_may_be_yet_to_come():
    cfg = load_config(
        str(ROOT / "configs/Photos/retinanet_lite0.py"),
        ["model.num_classes=5", "model.class_balance._target_=iou_balanced.losses.ClassBalanced"],
    )
    assert instantiate(cfg.model.class_balance).num_classes == 5


def test_targets_within_targets_in_any_order(cfg):
    inner = "model.cls_loss.loss._target_=iou_balanced.losses.VarifocalLoss"
    outer = "model.cls_loss._target_=iou_balanced.losses.CorrelationLoss"
    for overrides in ([inner, outer], [outer, inner]):
        made = apply_overrides(copy.deepcopy(cfg), ["model.cls_loss.loss.gamma=1.5", *overrides])
        loss = instantiate(made.model.cls_loss)
        assert (type(loss), type(loss.loss)) == (CorrelationLoss, VarifocalLoss)
        assert loss.loss.gamma == 1.5


def test_the_call_of_an_unknown_function_is_an_error(cfg):
    for name in ("VarifocallLoss", "Varifocal", "varifocal"):  # the last is a module
        with pytest.raises(UserError, match=r"mean iou_balanced\.losses\.(Varif|varifocal_)"):
            apply_overrides(cfg, [f"model.cls_loss._target_=iou_balanced.losses.{name}"])
    with pytest.raises(UserError, match="register_vok_dir: there is no such function"):
        apply_overrides(cfg, ["datasets.train._target_=iou_balanced.data.register_vok_dir"])


def test_a_key_below_a_value_says_what_to_do():
    cfg = load_config(str(ROOT / "configs/COCO/retinanet_R_50_FPN_1x.py"), [])
    with pytest.raises(UserError, match=r"datasets.train is the value 'coco_2017_train'"):
        apply_overrides(cfg, ["datasets.train.root=photos"])


def test_what_does_not_parse_is_an_error(cfg):
    with pytest.raises(UserError, match="cannot read the override"):
        apply_overrides(cfg, ["train.max_iter"])


def test_lists_are_indexed(cfg):
    apply_overrides(cfg, ["model.anchor_generator.strides.0=4"])
    assert cfg.model.anchor_generator.strides[0] == 4
    with pytest.raises(UserError, match="unknown key"):
        apply_overrides(cfg, ["model.anchor_generator.strides.7=4"])


def test_missing_config_files_are_named():
    with pytest.raises(UserError, match=r"config file .*nothing\.py does not exist"):
        load_config("nothing.py", [])
    with pytest.raises(UserError, match="--config-file is missing"):
        load_config("", [])


def test_a_config_without_a_model_says_what_is_missing(tmp_path):
    path = tmp_path / "c.py"
    path.write_text("train = dict(max_iter=3)\n")
    with pytest.raises(UserError, match="has no model and no dataloader"):
        load_config(str(path), [])


def test_defaults_fill_what_a_config_of_detectron2_leaves_out():
    from detectron2 import model_zoo

    path = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.py")
    cfg = load_config(path, ["train.clip_grad.max_norm=35"])
    assert cfg.train.clip_grad.max_norm == 35
    assert cfg.train.reference_batch_size is None
    assert cfg.train.max_iter == 90000
    assert OmegaConf.select(cfg, "train.best_checkpoint.metric") is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--resume", "--resume: flags go before the key=value overrides"),
        ("train.output_dir=a,b", "train.output_dir: several values"),
        ("train.amp=true", "train.amp=True: train.amp has keys of its own: enabled, dtype"),
        (
            "dataloader.train.dataset.names.num_images=3",
            r"dataloader.train.dataset.names is \$\{datasets.train\}: override it there",
        ),
        ("train.output_dir=a=b (c)", "put it into quotes within quotes"),
    ],
)
def test_slips_are_said_in_the_users_words(cfg, override, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(cfg, [override])


def test_no_seed_may_be_written_as_null():
    assert load_config(CONFIG, ["train.seed=null"]).train.seed == -1


CENTERNET = str(ROOT / "configs/Digits/centernet_small_long_tail.py")


@pytest.mark.parametrize("sign", ["", "+"])
def test_a_key_of_a_call_that_is_not_there(sign):
    message = (
        r"model\.class_balance\.eta: this config has no model\.class_balance: "
        r"model\.class_balance\._target_=\.\.\. gives it one; .* end with _bofl have one"
    )
    with pytest.raises(UserError, match=message):
        load_config(CENTERNET, [f"{sign}model.class_balance.eta=0.7"])
    target = "model.class_balance._target_=iou_balanced.losses.BalanceOriented"
    load_config(CENTERNET, [target, f"{sign}model.class_balance.eta=0.7"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.cls_loss.alpha=-3"],
            r"^model\.cls_loss\.alpha=-3: Expected argument `alpha` to be",
        ),
        (
            ["model.class_balance.eta=1.5"],
            r"^model\.class_balance\.eta=1\.5: Expected argument `eta`",
        ),
        (
            ["model.class_balance.count_over=gpu"],
            r"^model\.class_balance\.count_over=gpu: Expected argument `count",
        ),
        (
            ["model.class_balance.schedule.update=hour"],
            r"^model\.class_balance\.schedule\.update=hour: Expected argument `update`",
        ),
        (
            ["model.head.num_classes=3"],
            r"^model\.head: Expected argument `head` to have num_classes=10, as the model has",
        ),
        (
            [
                "model.cls_loss._target_=iou_balanced.losses.IoUBalancedFocalLoss",
                "model.cls_loss.alpha=0.25",
            ],
            r"^model\.cls_loss: Expected argument `cls_loss` to be a loss of heat maps, as Pen"
            r"altyReducedFocalLoss and IoUBalancedPenaltyReducedFocalLoss are, but got IoUBal",
        ),
    ],
)
def test_arguments_that_a_class_refuses_are_named_by_their_key(overrides, message):
    cfg = load_config(CENTERNET.replace(".py", "_bofl.py"), overrides)
    with pytest.raises(UserError, match=message):
        instantiate_model(cfg)


def test_a_loss_of_heat_maps_for_class_labels():
    cfg = load_config(
        CONFIG, ["model.cls_loss._target_=iou_balanced.losses.PenaltyReducedFocalLoss"]
    )
    message = r"^model\.cls_loss: .* loss of class labels, as SigmoidFocalLoss and"
    with pytest.raises(UserError, match=message):
        instantiate_model(cfg)


def test_errors_from_elsewhere_keep_their_traceback():
    cfg = load_config(CONFIG, ["model.backbone.bottom_up.out_features=[nowhere]"])
    with pytest.raises(Exception) as e:
        instantiate_model(cfg)
    assert not isinstance(e.value, UserError)


def test_a_new_target_keeps_what_its_arguments_refer_to():
    """In any order of the overrides, which are not all done when the target is set."""
    overrides = [
        "dataloader.evaluator._target_=iou_balanced.evaluation.VOCDetectionEvaluator",
        "datasets.test._target_=iou_balanced.data.register_coco_json",
        "datasets.test.name=photos",
    ]
    for order in (overrides, overrides[::-1]):
        cfg = load_config(BASELINE, order)
        assert cfg.dataloader.evaluator.dataset_name == cfg.datasets.test
        assert cfg.dataloader.evaluator.dataset_name.name == "photos"
