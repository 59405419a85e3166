"""Values in the nodes of models, data loaders and evaluators, refused before any data is read."""

from pathlib import Path

import pytest
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, load_config, main
from iou_balanced.engine.checks import check_config
from iou_balanced.engine.node_options import check_nodes

from .helpers import CONFIG, ROOT, make_args, tiny_config

RCNN = str(ROOT / "configs/Digits/faster_rcnn_small.py")
VOC = str(next((ROOT / "configs/VOC").glob("retinanet*.py")))
STOCK = Path(model_zoo.__file__).parent / "configs"
FILES = {
    f"{path.parent.name}/{path.name}": str(path)
    for folder in (ROOT / "configs", STOCK)
    for path in sorted(folder.glob("*/*.py"))
    if path.parent.name != "common"
}
COUNT = "give a whole number from 1 on"
SHARE = "give a number in [0, 1]"
IOU = "give a number above 0 and up to 1"
FORMAT = "give RGB, BGR, L or YUV-BT.601"
MEAN = "give a list of 1 or 3 finite numbers"
STD = "give a list of 1 or 3 numbers above 0"
PAIR = "give two whole numbers from 1 on, for training and for testing"
THRESHOLDS = "give a list of ascending numbers above 0 and up to 1"
FLAG = "give true or false"
NAMES = "give the name of a data set, a call that registers one, or a list of these"
EVALUATOR = "dataloader.evaluator"

BAD = {
    "model.num_classes": (["0", "-1", "10.0", "true", "null", "x"], COUNT),
    "model.test_score_thresh": (["nan", "-0.1", "1.1", "x", "null", "true"], SHARE),
    "model.test_nms_thresh": (["0", "-1", "1.5", "nan", "x"], IOU),
    "model.test_topk_candidates": (["0", "-1", "1.5", "x", "null"], COUNT),
    "model.max_detections_per_image": (["0", "-1", "100.0", "true"], COUNT),
    "model.input_format": (["RBG", "rgb", "null", "5"], FORMAT),
    "model.pixel_mean": (["null", "5", "[]", "[1, 2]", "[1, 2, x]", "[1, 2, nan]"], MEAN),
    "model.pixel_std": (["null", "5", "[1, 1, 0]", "[1, 1, -1]", "[1, 1, inf]"], STD),
    "model.anchor_matcher.thresholds": (
        ["[0.5, 0.4]", "[0.4, 1.5]", "[0, 0.5]", "[-0.1, 0.5]", "[0.4, nan]", "[]", "0.5", "null"],
        THRESHOLDS,
    ),
    "dataloader.train.dataset.names": (["[]", "null", "[5]"], NAMES),
    "dataloader.test.dataset.names": (["[]", "null"], NAMES),
    "dataloader.train.mapper": (["null", "abc"], "give a call, a LazyCall of a function or class"),
    "dataloader.test.mapper": (["null", "abc"], "give a call, a LazyCall of a function or class"),
    EVALUATOR: (["abc"], "give a call, a LazyCall of a function or class"),
    f"{EVALUATOR}.scorer": (
        ["coco", "5", "null"],
        "give auto, pycocotools or faster-coco-eval",
    ),
    f"{EVALUATOR}.tasks": (
        ["bbox", "[box]", "[bbox, 5]", "5"],
        "give a list of bbox, segm and keypoints, or null for those of the detections",
    ),
    f"{EVALUATOR}.max_dets_per_image": (["0", "-1", "1.5", "x"], f"{COUNT}, or null for 100"),
    f"{EVALUATOR}.tail_ratio": (["-0.1", "1.5", "nan", "x", "null"], SHARE),
    f"{EVALUATOR}.result_file": (
        ["a.txt", "5", "''"],
        "give a name that ends in .json, or null for none",
    ),
}
BAD_OF_RCNN = {
    "model.roi_heads.num_classes": (["0", "10.0"], COUNT),
    "model.roi_heads.box_predictor.test_score_thresh": (["2", "nan"], SHARE),
    "model.roi_heads.box_predictor.test_nms_thresh": (["0", "1.5"], IOU),
    "model.roi_heads.box_predictor.test_topk_per_image": (
        ["0", "-2", "1.5"],
        f"{COUNT}, or -1 for all of them",
    ),
    "model.roi_heads.proposal_matcher.thresholds": (["[1.5]"], THRESHOLDS),
    "model.proposal_generator.pre_nms_topk": (["5", "[0, 5]", "[5]", "[5, 1.5]", "null"], PAIR),
    "model.proposal_generator.post_nms_topk": (["-1", "[5, x]"], PAIR),
    "model.proposal_generator.nms_thresh": (["0", "2"], IOU),
    "model.input_format": (["RBG"], FORMAT),
}
FLAGS = {
    "optimizer.amsgrad": CONFIG,
    "optimizer.nesterov": VOC,
    "dataloader.train.aspect_ratio_grouping": CONFIG,
    "dataloader.train.dataset.filter_empty": CONFIG,
    "dataloader.test.dataset.filter_empty": CONFIG,
}


def load(config, *overrides):
    return load_config(config, ["train.device=cpu", *overrides])


def written(value):
    """As the message has it: the words of the command line, and lists as Python shows them."""
    return value.replace(", x]", ", 'x']").replace("[box]", "['box']").replace("[bbox,", "['bbox',")


def cases(table, config):
    return [(config, key, value, text) for key, (values, text) in table.items() for value in values]


@pytest.mark.parametrize(
    ("config", "key", "value", "text"),
    [
        *cases(BAD, CONFIG),
        *cases(BAD_OF_RCNN, RCNN),
        *cases({f"{EVALUATOR}.metric": (["12point", "null"], "give 11point or area")}, VOC),
    ],
)
def test_one_line_with_key_value_and_what_is_allowed(config, key, value, text):
    cfg = load(config, f"{key}={value}")
    with pytest.raises(UserError) as e:
        check_nodes(cfg)
    assert str(e.value).startswith(f"{key}={written(value)}: {text}")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", ["maybe", "5", "null", "0.5"])
@pytest.mark.parametrize("key", FLAGS)
def test_flags(key, value):
    with pytest.raises(UserError) as e:
        load(FLAGS[key], f"{key}={value}")
    assert str(e.value) == f"{key}={value}: {FLAG}"


GOOD = [
    *("model.num_classes=1", "model.test_score_thresh=0", "model.test_score_thresh=1"),
    *("model.test_nms_thresh=1", "model.test_topk_candidates=1", "model.input_format=YUV-BT.601"),
    *("model.input_format=L", "model.anchor_matcher.thresholds=[0.5,0.5]"),
    *("dataloader.train.aspect_ratio_grouping=true", "dataloader.train.dataset.names=[a,b]"),
    *("dataloader.train.dataset.filter_empty=0", "optimizer.amsgrad=true", f"{EVALUATOR}=null"),
    *(f"{EVALUATOR}.scorer=pycocotools", f"{EVALUATOR}.tasks=[bbox,segm,keypoints]"),
    *(f"{EVALUATOR}.tasks=null", f"{EVALUATOR}.max_dets_per_image=300"),
    *(f"{EVALUATOR}.tail_ratio=0", f"{EVALUATOR}.result_file=a.json"),
    # A call gives what it likes.
    "model.num_classes._target_=iou_balanced.data.register_coco_json",
]


@pytest.mark.parametrize("override", GOOD)
def test_what_makes_sense_is_taken(override):
    check_nodes(load(CONFIG, override))


@pytest.mark.parametrize(
    "override",
    [
        "model.roi_heads.box_predictor.test_topk_per_image=-1",
        "model.proposal_generator.pre_nms_topk=[1,2]",
        "model.input_format=null",  # it draws nothing
        "+model.backbone.bottom_up.num_classes=null",  # no classifier
    ],
)
def test_what_makes_sense_in_an_rcnn(override):
    check_nodes(load(RCNN, override))


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.pixel_mean=[5]", "model.pixel_std=[1,1,1]"],
        ["model.pixel_mean=[5,5,5]", "model.pixel_std=[1]"],
    ],
)
def test_as_many_deviations_as_means(overrides):
    with pytest.raises(UserError, match=r"^model\.pixel_std=\[1.*: give as many numbers as pixel_"):
        check_nodes(load(CONFIG, *overrides))
    check_nodes(load(CONFIG, "model.pixel_mean=[5]", "model.pixel_std=[1]"))


@pytest.mark.parametrize("file", FILES)
def test_every_config(file):
    """Of configs/ and of Detectron2."""
    # What the config leaves to its user.
    own = ["datasets.train.root=photos", "model.num_classes=3"] if "Photos" in file else []
    check_nodes(load_config(FILES[file], own))


def test_the_configs_are_there():
    assert len(FILES) > 100
    assert {"COCO-Detection/fcos_R_50_FPN_1x.py", "COCO/retinanet_R_50_FPN_1x.py"} <= set(FILES)


@pytest.fixture
def cascade():
    cfg = load_config(FILES["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"], [])
    cfg.model = model_zoo.get_config("common/models/cascade_rcnn.py").model
    return cfg


def test_in_the_stages_of_a_cascade(cascade):
    check_nodes(cascade)
    cascade.model.roi_heads.box_predictors[1].test_score_thresh = 7
    with pytest.raises(UserError, match=r"^model\.roi_heads\.box_predictors\.1\.test_score_t.*=7:"):
        check_nodes(cascade)
    cascade.model.roi_heads.box_predictors[1].test_score_thresh = 0.05
    cascade.model.roi_heads.proposal_matchers[2].thresholds = [7]
    with pytest.raises(UserError, match=r"^model\.roi_heads\.proposal_matchers\.2\.thresholds=\[7"):
        check_nodes(cascade)


def test_the_key_is_that_where_the_value_is_written():
    cfg = load(CONFIG)
    cfg.number = 10.0
    cfg.model.num_classes = "${number}"
    with pytest.raises(UserError, match=r"^model\.\S*num_classes=10\.0: give a whole number"):
        check_nodes(cfg)
    cfg.model.num_classes = "${nowhere}"
    with pytest.raises(UserError, match=r"^model\.\S*num_classes=\$\{\S+\}: Interpolation key"):
        check_nodes(cfg)


def test_each_of_several_evaluators():
    cfg = load(CONFIG)
    node = cfg.dataloader.evaluator
    cfg.dataloader.evaluator = [node, node]
    check_nodes(cfg)
    cfg.dataloader.evaluator[1].scorer = "coco"
    with pytest.raises(UserError, match=r"^dataloader\.evaluator\.1\.scorer=coco: give auto, pyc"):
        check_nodes(cfg)
    cfg.dataloader.evaluator[1] = "coco"
    with pytest.raises(UserError, match=r"^dataloader\.evaluator\.1=coco: give a call"):
        check_nodes(cfg)
    del cfg.dataloader["evaluator"]
    check_nodes(cfg)


def own(**kwargs):
    return kwargs


def test_what_is_ones_own_is_left_alone():
    cfg = load(CONFIG)
    cfg.dataloader.evaluator = L(own)(scorer="mine", tasks=5, metric="mine", dataset_name=None)
    cfg.dataloader.train.mapper = own
    cfg.dataloader.test.dataset = L(own)()  # gives what the model takes
    cfg.dataloader.test.mapper = None
    cfg.dataloader.train._target_ = own
    check_nodes(cfg)
    cfg.dataloader.train.mapper = None
    check_nodes(cfg)


def test_a_target_that_is_written_as_text():
    cfg = load(CONFIG)
    cfg.dataloader.evaluator = OmegaConf.create(
        {"_target_": "iou_balanced.evaluation.VOCDetectionEvaluator", "metric": "mine"}
    )
    with pytest.raises(UserError, match=r"^dataloader\.evaluator\.metric=mine: give 11point or a"):
        check_nodes(cfg)


@pytest.mark.parametrize("eval_only", [False, True])
@pytest.mark.parametrize(
    "override",
    [
        *("model.test_score_thresh=nan", "model.pixel_std=[0,1,1]", "model.num_classes=10.0"),
        *(f"{EVALUATOR}.scorer=coco", "dataloader.test.mapper=abc", "dataloader.train.mapper=abc"),
        *("dataloader.train.dataset.names=[]", "dataloader.test.dataset.names=5"),
    ],
)
def test_before_any_data_is_read(tmp_path, monkeypatch, override, eval_only):
    monkeypatch.setattr("iou_balanced.engine.train.default_setup", None)
    key = override.partition("=")[0]
    args = make_args(opts=[override, f"train.output_dir={tmp_path}"], eval_only=eval_only)
    with pytest.raises(UserError, match=f"^{key}=.*: give "):
        main(args)


def test_values_set_after_loading_are_looked_at_too():
    cfg = tiny_config()
    cfg.model.test_nms_thresh = 0
    for eval_only in (False, True):
        with pytest.raises(UserError, match=r"^model\.test_nms_thresh=0: give a number above 0"):
            check_config(cfg, eval_only=eval_only)
