"""Classes by name between training set, test set and checkpoint, with a LazyConfig."""

import json
import math

import pytest
from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator

from iou_balanced.engine import UserError, do_test, load_config, main
from iou_balanced.engine.checks import check_config
from iou_balanced.evaluation import VOCDetectionEvaluator

from .colors import CONFIG, LISTS, ORDER, OTHER, args_for, coco_set, knows, save, voc_set


def evaluate(tmp_path, checkpoint, *opts):
    opts = (*opts, f"train.init_checkpoint={checkpoint}", f"train.output_dir={tmp_path}/eval")
    return main(args_for(*opts, eval_only=True))["bbox"]


# Evaluation


def test_another_order_in_the_test_file(colors_run, tmp_path):
    out, data = colors_run
    same = evaluate(
        tmp_path, out / "model_final.pth", *data[:4], *coco_set(tmp_path, ORDER, "test")
    )
    other = evaluate(tmp_path, out / "model_final.pth", *data)
    assert other == pytest.approx(same, nan_ok=True) and other["AP"] == 100
    assert [k for k in other if k.startswith("AP-")] == ["AP-red", "AP-green", "AP-blue"]
    # So had the evaluations of the training.
    records = map(json.loads, (out / "metrics.json").read_text().splitlines())
    assert [r["bbox/AP"] for r in records if "bbox/AP" in r][-1] == 100


def test_voc_folders_of_other_classes(tmp_path, log):
    data = voc_set(tmp_path / "a", ["red", "green", "blue", "black"], "train")
    data += voc_set(tmp_path / "b", ["red", "black"], "test")
    weights = save(tmp_path / "w.pth", ["black", "blue", "green", "red"])
    result = evaluate(tmp_path, weights, *data, "model.num_classes=4")
    assert result["AP"] == result["AP-red"] == result["AP-black"] == 100
    assert math.isnan(result["AP-green"]) and "has 2 of the model's 4 classes" in log()


def test_a_test_set_that_lacks_a_class(colors_run, tmp_path, log):
    out, data = colors_run
    opts = [*data[:4], *coco_set(tmp_path, ["blue", "red"], "test")]
    check_config(load_config(CONFIG, opts))  # nor does a training mind
    result = evaluate(tmp_path, out / "model_final.pth", *opts)
    assert result["AP"] == 100 and math.isnan(result["AP-green"])
    assert "has 2 of the model's 3 classes: the AP of the others is NaN" in log()
    # The class counts of the training are by the model's names.
    assert result["AP_head"] == 100 and (out / "class_counts.json").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["red", "black"],
            r"has 1 classes that .* does not have: 'black'.*'red', 'black'.*'green'",
        ),
        (["red", "Green "], "differ in upper and lower case or blanks only: 'Green ' and 'green'"),
    ],
)
def test_a_class_that_the_model_does_not_have(colors_run, tmp_path, classes, message):
    out, data = colors_run
    opts = [*data[:4], *coco_set(tmp_path, classes, "test")]
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path, out / "model_final.pth", *opts)
    with pytest.raises(UserError, match=message):
        main(args_for(*opts, f"train.output_dir={tmp_path}/new"))
    assert not list(tmp_path.rglob("*.pth"))


def test_the_checkpoint_decides(tmp_path, log):
    """The config's training set may be another than its model's."""
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, ORDER, "test")]
    assert evaluate(tmp_path, save(tmp_path / "w.pth", OTHER), *data)["AP"] == 100
    assert "The model's classes are those of train.init_checkpoint=" in log()
    assert "(dataloader.train.dataset.names) are others: 'red', 'green', 'blue'" in log()


def test_a_checkpoint_without_names_has_those_of_the_training_set(tmp_path, log):
    weights = save(tmp_path / "w.pth", ORDER, names=False)
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, OTHER, "test")]
    assert evaluate(tmp_path, weights, *data)["AP"] == 100
    assert "w.pth names no classes: they are taken to be those of data set 'colors_train" in log()


@pytest.mark.parametrize("training", ["nowhere", "not there", "other number"])
def test_a_checkpoint_without_names_and_no_training_set(tmp_path, log, training):
    """By their numbers then, and said so."""
    train = {
        "nowhere": ["datasets.train=nowhere"],
        "not there": coco_set(tmp_path, ORDER, "train")[:2],
        "other number": coco_set(tmp_path, ["black"], "train"),
    }[training]
    if training == "not there":
        train += ["datasets.train.json_file=none.json", "datasets.train.image_root=none"]
    weights = save(tmp_path / "w.pth", ORDER, names=False)
    assert evaluate(tmp_path, weights, *train, *coco_set(tmp_path, ORDER, "test"))["AP"] == 100
    assert "w.pth names no classes: they are taken to be in the test set's order" in log()
    test = coco_set(tmp_path, ["red", "blue"], "test")
    with pytest.raises(UserError, match=r"has 2 classes \(red, blue\), but model\.num_classes=3"):
        evaluate(tmp_path, weights, *train, *test)


def test_a_checkpoint_of_another_number_of_classes_names_them(tmp_path):
    weights = save(tmp_path / "w.pth", ORDER)
    data = coco_set(tmp_path, ORDER, "test")
    with pytest.raises(UserError, match=r"this number of classes\? Its 3 are 'red', 'green', 'bl"):
        evaluate(tmp_path, weights, *data, "model.num_classes=2")


class ByNumber(DatasetEvaluator):
    def process(self, inputs, outputs):
        pass

    def evaluate(self):
        return {"own": {"AP": 7}}


class Reports(ByNumber):
    """A stand-in that tells which names it was given."""

    given = None

    def __init__(self, class_names=None):
        Reports.given = None if class_names is None else list(class_names)


def test_evaluators(tmp_path):
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, OTHER, "test")]

    def test(evaluator, *opts, **kwargs):
        cfg = load_config(CONFIG, [*data, f"train.output_dir={tmp_path}", *opts])
        cfg.dataloader.evaluator = evaluator
        return do_test(cfg, knows(ORDER), **kwargs)["own"]["AP"]

    def given(evaluator, *opts, **kwargs):
        test(evaluator, *opts, **kwargs)
        return Reports.given

    assert given(L(Reports)()) == ORDER  # of the training set
    assert given(L(Reports)(), class_names=["green", "blue", "red"]) == ["green", "blue", "red"]
    assert given(L(Reports)(class_names=["x"])) == ["x"]  # whoever gives it knows why
    both = [L(VOCDetectionEvaluator)(dataset_name="${...test.dataset.names}"), L(Reports)()]
    assert given(both) == ORDER

    stock = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    for evaluator, name in ((L(ByNumber)(), "ByNumber"), (stock, "COCOEvaluator")):
        message = f"{name} compares classes by their number.*'blue', 'red'.*VOCDetectionEvaluator"
        with pytest.raises(UserError, match=message):
            test(evaluator)
        cfg = load_config(CONFIG, data)
        cfg.dataloader.evaluator = evaluator
        with pytest.raises(UserError, match=message):  # before a training too
            check_config(cfg)
    assert test(L(ByNumber)(), class_names=OTHER) == 7
    with pytest.raises(UserError, match="does not have: 'green'"):
        test(L(ByNumber)(), class_names=["red", "blue"])


# Training


def test_training_sets_have_the_same_classes(tmp_path):
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, ORDER, "test")]
    cfg = load_config(CONFIG, data)
    other = load_config(CONFIG, coco_set(tmp_path, OTHER, "train"))
    cfg.dataloader.train.dataset.names = [cfg.datasets.train, other.datasets.train]
    message = f"dataloader.train.dataset.names has data sets of other classes: .*{LISTS}"
    with pytest.raises(UserError, match=message):
        check_config(cfg)


def test_the_models_number_is_that_of_the_training_set(tmp_path):
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, ["red"], "test")]
    with pytest.raises(UserError, match=r"\(dataloader\.train\.dataset\.names\) has 3 classes"):
        check_config(load_config(CONFIG, [*data, "model.num_classes=1"]))
