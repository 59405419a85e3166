"""Classes by name between training set, test set and checkpoint, with a LazyConfig."""

import inspect
import json
import logging
import math
import re

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.modeling.meta_arch.retinanet import RetinaNet

from iou_balanced.engine import UserError, do_test, load_config, main
from iou_balanced.engine.checkpoint import Checkpointer
from iou_balanced.engine.checks import check_config
from iou_balanced.engine.class_names import ModelClasses
from iou_balanced.evaluation import VOCDetectionEvaluator

from ..processes import run_in_two_processes
from .colors import CONFIG, ORDER, OTHER, Colors, args_for, coco_set, knows, save, voc_set
from .helpers import ROOT, tiny_config, train_net

LISTS = "'red', 'green', 'blue'.*'blue', 'red', 'green'"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, overrides) of a training whose test set has another order of the classes."""
    folder = tmp_path_factory.mktemp("run")
    data = [*coco_set(folder, ORDER, "train"), *coco_set(folder, OTHER, "test")]
    out = folder / "out"
    main(args_for(*data, f"train.output_dir={out}"))
    return out, data


def evaluate(tmp_path, checkpoint, *opts):
    opts = (*opts, f"train.init_checkpoint={checkpoint}", f"train.output_dir={tmp_path}/eval")
    return main(args_for(*opts, eval_only=True))["bbox"]


@pytest.fixture
def log(caplog):
    """The messages of the package from here on."""
    caplog.set_level(logging.INFO, logger="iou_balanced")
    return lambda: "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith("iou_balanced")
    )


# Evaluation


def test_another_order_in_the_test_file(run, tmp_path):
    out, data = run
    same = evaluate(
        tmp_path, out / "model_final.pth", *data[:4], *coco_set(tmp_path, ORDER, "test")
    )
    other = evaluate(tmp_path, out / "model_final.pth", *data)
    assert other == pytest.approx(same, nan_ok=True) and other["AP"] == 100
    assert [k for k in other if k.startswith("AP-")] == ["AP-red", "AP-green", "AP-blue"]
    # The evaluations of the training had it too: it is 100 from the first one on, not 0.
    assert (out / "metrics.json").read_text().count('"bbox/AP": 100.0') >= 1


def test_voc_folders_of_other_classes(tmp_path, log):
    data = voc_set(tmp_path / "a", ["red", "green", "blue", "black"], "train")
    data += voc_set(tmp_path / "b", ["red", "black"], "test")
    weights = save(tmp_path / "w.pth", ["black", "blue", "green", "red"])
    result = evaluate(tmp_path, weights, *data, "model.num_classes=4")
    assert result["AP"] == result["AP-red"] == result["AP-black"] == 100
    assert math.isnan(result["AP-green"]) and "has 2 of the model's 4 classes" in log()


def test_a_test_set_that_lacks_a_class(run, tmp_path, log):
    out, data = run
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
def test_a_class_that_the_model_does_not_have(run, tmp_path, classes, message):
    out, data = run
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


def test_every_checkpoint_has_the_names(run):
    out, _ = run
    files = sorted(out.glob("*.pth"))
    periodic = ["model_0000009.pth", "model_0000019.pth"]
    assert [f.name for f in files] == [*periodic, "model_best.pth", "model_final.pth"]
    for file in files:
        content = torch.load(file, weights_only=True)
        assert content["class_names"] == ORDER and type(content["class_names"]) is list
        model = Colors(num_classes=3)
        rest = DetectionCheckpointer(model).load(str(file))
        assert torch.equal(model.cls_score.weight, content["model"]["cls_score.weight"])
        assert "iteration" in rest


def test_detectron2s_own_detector_loads_the_file(tmp_path, caplog):
    cfg = tiny_config().model
    model = instantiate(cfg)
    Checkpointer(model, str(tmp_path), classes=ModelClasses(list("0123456789"), "")).save("ours")
    known = inspect.signature(RetinaNet.__init__).parameters
    kept = {k: v for k, v in cfg.items() if k in known}
    stock = RetinaNet(**{k: instantiate(v) for k, v in kept.items()})
    checkpointer = DetectionCheckpointer(stock)
    checkpointer.load(str(tmp_path / "ours.pth"))
    assert "not found" not in caplog.text and "not used" not in caplog.text
    for name, value in stock.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


# Resuming


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_resume_with_another_order_is_refused(run, tmp_path):
    out, data = run
    before = stamps(out)
    opts = (*coco_set(tmp_path, OTHER, "train"), *data[4:], f"train.output_dir={out}")
    with pytest.raises(UserError, match=f"model_final.pth is of a run with the classes {LISTS}"):
        main(args_for(*opts, resume=True))
    assert stamps(out) == before
    # So does the checkpointer, before it changes the weights.
    model = Colors(num_classes=3)
    weights = model.cls_score.weight.detach().clone()
    checkpointer = Checkpointer(model, str(out), classes=ModelClasses(OTHER, "data set 'x'"))
    with pytest.raises(UserError, match=f"{LISTS}: a resumed run needs the same"):
        checkpointer.resume_or_load("", resume=True)
    assert torch.equal(model.cls_score.weight, weights)


@pytest.mark.parametrize("names", [True, False])
def test_a_resume_with_the_same(tmp_path, log, names):
    out = tmp_path / "out"
    data = [*coco_set(tmp_path, ORDER, "train"), *coco_set(tmp_path, OTHER, "test")]
    opts = [*data, f"train.output_dir={out}", "train.eval_period=0"]
    main(args_for(*opts, "train.max_iter=1"))
    if not names:  # as of a run before there were any
        content = torch.load(out / "model_final.pth", weights_only=True)
        del content["class_names"]
        torch.save(content, out / "model_final.pth")
    main(args_for(*opts, "train.max_iter=2", resume=True))
    content = torch.load(out / "model_final.pth", weights_only=True)
    assert content["iteration"] == 1 and content["class_names"] == ORDER
    said = "does not name the classes of its classifier: they are taken to be those of data set"
    assert (said in log()) is not names


def _two_processes(rank):
    """What each process says: of a folder that only the second one has, and of names likewise."""
    from iou_balanced.engine.class_names import classes_of_evaluated, on_every_process

    said = []
    try:
        with on_every_process():
            if rank == 1:
                raise UserError("of the second")
    except UserError as e:
        said.append(str(e))
    training = ModelClasses(["a"], "there") if rank == 0 else None
    return [*said, classes_of_evaluated(None, "file", training).names]


def test_every_process_says_the_same(tmp_path):
    assert run_in_two_processes(_two_processes, tmp_path) == [["of the second", ["a"]]] * 2


def test_the_command(run, tmp_path, monkeypatch):
    """Evaluation without the training set, and a resume that is refused in one line."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'projects'}")
    out, data = run
    evaluation = (f"train.init_checkpoint={out}/model_final.pth", f"train.output_dir={tmp_path}")
    subset = coco_set(tmp_path, ["blue", "red"], "test")
    result = train_net("--eval-only", "datasets.train=none", *subset, *evaluation, config=CONFIG)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["bbox/AP"] == 100 and math.isnan(metrics["bbox/AP-green"])

    other = (*coco_set(tmp_path, OTHER, "train"), *data[4:], f"train.output_dir={out}")
    result = train_net("--resume", *other, config=CONFIG)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(f"error: .*is of a run with the classes {LISTS}", result.stderr)
