"""Classes by name with COCO's metrics: from the config to the numbers."""

import math

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from iou_balanced.data import register_coco_json
from iou_balanced.engine import BalancedDefaultTrainer, UserError, main

from .colors import ORDER, OTHER, args_for, coco_set, save
from .test_yaml_class_names import config, load  # noqa: F401  (a fixture)

EVALUATOR = "dataloader.evaluator._target_=iou_balanced.evaluation.COCOBoxEvaluator"


def evaluate(tmp_path, test_set, checkpoint_classes):
    weights = save(tmp_path / "w.pth", checkpoint_classes)
    opts = (*coco_set(tmp_path, ORDER, "train"), *test_set, f"train.output_dir={tmp_path}/eval")
    opts += (f"train.init_checkpoint={weights}", EVALUATOR)
    return main(args_for(*opts, eval_only=True))["bbox"]


def ap_of(result):
    return {k.removeprefix("AP-"): v for k, v in result.items() if k.startswith("AP-")}


@pytest.mark.parametrize("classes", [ORDER, OTHER])
def test_another_order_in_the_test_file(tmp_path, classes):
    result = evaluate(tmp_path, coco_set(tmp_path, classes, "test"), ORDER)
    assert result["AP"] == pytest.approx(100)
    assert list(ap_of(result)) == ORDER


def test_the_checkpoints_order(tmp_path):
    result = evaluate(tmp_path, coco_set(tmp_path, ORDER, "test"), OTHER)
    assert result["AP"] == pytest.approx(100) and list(ap_of(result)) == OTHER


def test_a_test_set_that_lacks_a_class(tmp_path):
    result = evaluate(tmp_path, coco_set(tmp_path, ["blue", "red"], "test"), ORDER)
    assert result["AP"] == pytest.approx(100)
    assert [name for name, ap in ap_of(result).items() if math.isnan(ap)] == ["green"]


def test_in_training(tmp_path):
    """With AP_tail and AP_head, by the training's class counts."""
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, ["blue", "red"], "test")]
    main(args_for(*data, f"train.output_dir={tmp_path}/out", EVALUATOR))
    text = (tmp_path / "out/metrics.json").read_text()
    assert '"bbox/AP": 100.0' in text or '"bbox/AP": 99.99' in text
    assert '"bbox/AP_head": 100.0' in text or '"bbox/AP_head": 99.99' in text


def test_a_class_that_the_model_does_not_have(tmp_path):
    with pytest.raises(UserError, match="does not have: 'black'"):
        evaluate(tmp_path, coco_set(tmp_path, ["red", "black"], "test"), ORDER)


@pytest.mark.parametrize("classes", [OTHER, ["blue", "red"]])
def test_yaml(config, tmp_path, classes):  # noqa: F811
    pairs = dict(opt.split("=", 1) for opt in coco_set(tmp_path, classes, "test")[1:])
    arguments = {key.rsplit(".", 1)[-1]: value for key, value in pairs.items()}
    name = register_coco_json(**arguments)
    cfg = config("not_registered", name, weights=save(tmp_path / "w.pth", ORDER))
    result = BalancedDefaultTrainer.test(cfg, load(cfg))["bbox"]
    assert result["AP"] == pytest.approx(100) and list(ap_of(result)) == ORDER
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
