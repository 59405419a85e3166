"""Classes by name between training set, test set and checkpoint, with a yaml config."""

import logging
import math
from itertools import count

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model

from iou_balanced.engine import BalancedDefaultTrainer, UserError
from iou_balanced.evaluation import VOCDetectionEvaluator

from .colors import BOX, LISTS, ORDER, OTHER, YamlColors, knows, save, write_images

YAML = """
VERSION: 2
MODEL: {META_ARCHITECTURE: YamlColors, DEVICE: cpu, WEIGHTS: ""}
INPUT: {FORMAT: RGB, MIN_SIZE_TRAIN: [16], MIN_SIZE_TEST: 0}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 6, BASE_LR: 5.0, MAX_ITER: 20, WARMUP_ITERS: 0, STEPS: [],
         CHECKPOINT_PERIOD: 10}
TEST: {EVAL_PERIOD: 20}
"""
_names = count()


@pytest.fixture
def register(tmp_path):
    """A function that registers images of the given classes, for VOC's evaluation."""
    registered = []

    def make(classes, found_when_read=False):
        name = f"yaml_colors_{next(_names)}"
        files = write_images(tmp_path, classes)
        records = [
            {
                "file_name": str(tmp_path / file),
                "image_id": i,
                "height": 16,
                "width": 16,
                "annotations": [{"bbox": BOX, "bbox_mode": 0, "category_id": classes.index(color)}],
            }
            for i, (file, color) in enumerate(files.items())
        ]
        metadata = MetadataCatalog.get(name).set(years=[2012])
        if not found_when_read:
            metadata.set(thing_classes=classes)

        def read():
            metadata.thing_classes = classes  # as Detectron2's loader of COCO files does
            return records

        DatasetCatalog.register(name, read)
        registered.append(name)
        return name

    yield make
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def config(tmp_path):
    def make(train, test, num_classes=3, **model):
        cfg = get_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(YAML))
        cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
        cfg.MODEL.WEIGHTS = str(model.get("weights", ""))
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
        cfg.OUTPUT_DIR = str(tmp_path / "out")
        (tmp_path / "out").mkdir(exist_ok=True)
        return cfg

    return make


def train(cfg, *, resume=False, cls=BalancedDefaultTrainer):
    trainer = cls(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def load(cfg) -> YamlColors:
    """As Detectron2's scripts make a model that is only evaluated."""
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


@pytest.mark.parametrize("late", [False, True])
def test_training_and_resume(register, config, tmp_path, caplog, late):
    """Also with names that are known only after a data set was read."""
    caplog.set_level(logging.INFO, logger="iou_balanced")
    weights = save(tmp_path / "w.pth", OTHER)
    cfg = config(register(ORDER, late), register(OTHER, late), weights=weights)
    trainer = train(cfg)
    assert trainer._last_eval_results["bbox"]["AP"] == 100
    # The trainer knows what it trains, and need not guess by MODEL.WEIGHTS.
    assert "MODEL.WEIGHTS" not in caplog.text and "names no classes" not in caplog.text
    files = sorted((tmp_path / "out").glob("*.pth"))
    assert [f.name for f in files] == [f"model_{n}.pth" for n in ("0000009", "0000019", "final")]
    for file in files:
        assert torch.load(file, weights_only=True)["class_names"] == ORDER
    cfg.SOLVER.MAX_ITER = 21
    assert train(cfg, resume=True).start_iter == 20

    other = cfg.clone()
    other.DATASETS.TRAIN = (register(OTHER, late),)
    trainer = BalancedDefaultTrainer(other)
    before = trainer.model.cls_score.weight.detach().clone()
    message = f"model_final.pth is of a run with the classes {LISTS}.*with MODEL.WEIGHTS="
    with pytest.raises(UserError, match=message):
        trainer.resume_or_load(resume=True)
    assert torch.equal(trainer.model.cls_score.weight, before)


def test_data_sets_of_other_classes(register, config):
    with pytest.raises(UserError, match=r"not have: 'black'.*'red', 'black'.*'red', 'green'"):
        BalancedDefaultTrainer(config(register(ORDER), register(["red", "black"])))
    with pytest.raises(UserError, match="blanks only: 'Red' and 'red'"):
        BalancedDefaultTrainer(config(register(ORDER), register(["Red"])))
    BalancedDefaultTrainer(config(register(ORDER), register(["blue", "red"])))
    cfg = config(register(ORDER), register(ORDER))
    cfg.DATASETS.TRAIN += (register(OTHER),)
    with pytest.raises(
        UserError, match=f"DATASETS.TRAIN has data sets of other classes: .*{LISTS}"
    ):
        BalancedDefaultTrainer(cfg)


@pytest.mark.parametrize("classes", [OTHER, ["blue", "red"], ["black", "green", "red"]])
def test_fine_tuning_maps_the_rows(register, config, tmp_path, classes):
    weights = save(tmp_path / "w.pth", ORDER)
    name = register(classes)
    trainer = BalancedDefaultTrainer(config(name, name, len(classes), weights=weights))
    fresh = trainer.model.cls_score.weight.detach().clone()
    trainer.resume_or_load(resume=False)
    theirs = knows(ORDER).cls_score
    for i, name in enumerate(classes):
        row = theirs.weight[ORDER.index(name)] if name in ORDER else fresh[i]
        assert torch.equal(trainer.model.cls_score.weight[i], row), name


def test_fine_tuning_that_cannot_map(register, config, tmp_path, caplog):
    name = register(["red", "Green", "blue"])
    cfg = config(name, name, weights=save(tmp_path / "w.pth", ORDER))
    with pytest.raises(UserError, match=r"'green' and 'Green'.* Or give the weights by .*\.load\("):
        BalancedDefaultTrainer(cfg).resume_or_load(resume=False)
    name = register(ORDER)
    cfg = config(name, name, weights=save(tmp_path / "w.pth", OTHER, names=False))
    BalancedDefaultTrainer(cfg).resume_or_load(resume=False)
    (said,) = [r.getMessage() for r in caplog.records if "does not name" in r.getMessage()]
    assert said.endswith(f"those of data set '{name}' (DATASETS.TRAIN), in the same order")


def test_evaluation_alone(register, config, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="iou_balanced")
    weights = save(tmp_path / "w.pth", OTHER)
    subset = register(["green", "blue"])
    for train_set in (register(ORDER), "not_registered"):
        for test_set in (register(ORDER), register(OTHER, True), subset):
            cfg = config(train_set, test_set, weights=weights)
            result = BalancedDefaultTrainer.test(cfg, load(cfg))["bbox"]
            assert result["AP"] == 100, (train_set, test_set)
            assert [k for k in result if k.startswith("AP-")] == [f"AP-{n}" for n in OTHER]
            assert math.isnan(result["AP-red"]) is (test_set == subset)
    assert "The model's classes are those of MODEL.WEIGHTS=" in caplog.text
    cfg = config("not_registered", register(["red", "black"]), weights=weights)
    with pytest.raises(UserError, match="does not have: 'black'"):
        BalancedDefaultTrainer.test(cfg, load(cfg))


def test_evaluation_alone_of_a_file_without_names(register, config, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="iou_balanced")
    weights = save(tmp_path / "w.pth", ORDER, names=False)
    cfg = config(register(ORDER), register(OTHER), weights=weights)
    assert BalancedDefaultTrainer.test(cfg, load(cfg))["bbox"]["AP"] == 100
    assert "w.pth names no classes: they are taken to be those of data set" in caplog.text
    cfg = config("not_registered", register(ORDER), weights=weights)
    assert BalancedDefaultTrainer.test(cfg, load(cfg))["bbox"]["AP"] == 100
    assert "w.pth names no classes: they are taken to be in the test set's order" in caplog.text
    cfg = config("not_registered", register(["red"]), weights=weights)
    with pytest.raises(UserError, match=r"has 1 classes \(red\), but the model 3"):
        BalancedDefaultTrainer.test(cfg, load(cfg))


def test_evaluation_of_another_model_than_that_of_the_file(register, config, tmp_path, caplog):
    """As after Detectron2's resume_or_load(MODEL.WEIGHTS, resume=True)."""
    caplog.set_level(logging.INFO, logger="iou_balanced")
    for classes in (OTHER, OTHER[:2]):
        weights = save(tmp_path / "w.pth", classes)
        cfg = config(register(ORDER), register(ORDER), weights=weights)
        model = knows(ORDER, build_model(cfg))
        assert BalancedDefaultTrainer.test(cfg, model)["bbox"]["AP"] == 100
        assert "The model, whose weights are not those of MODEL.WEIGHTS=" in caplog.text
        # Nor do training sets matter that no training could have.
        cfg.DATASETS.TRAIN += (register(OTHER),)
        assert BalancedDefaultTrainer.test(cfg, model)["bbox"]["AP"] == 100


class ByNumber(DatasetEvaluator):
    def process(self, inputs, outputs):
        pass

    def evaluate(self):
        return {"own": {"metric": 7.0}}


class Beside(BalancedDefaultTrainer):
    """Has an evaluator of its own beside ours, with Detectron2's signature."""

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return DatasetEvaluators([super().build_evaluator(cfg, dataset_name), ByNumber()])


class WithNames(BalancedDefaultTrainer):
    given = None

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, class_names=None):
        WithNames.given = class_names
        return super().build_evaluator(cfg, dataset_name, class_names)


def test_evaluators_of_ones_own(register, config, tmp_path):
    weights = save(tmp_path / "w.pth", ORDER)
    same = config(register(ORDER), register(ORDER), weights=weights)
    assert Beside.test(same, load(same))["own"]["metric"] == 7
    other = config(register(ORDER), register(OTHER), weights=weights)
    message = (
        "ByNumber compares classes by their number.*build_evaluator can take an argument class"
    )
    with pytest.raises(UserError, match=message):
        Beside.test(other, load(other))
    with pytest.raises(UserError, match="ByNumber compares classes by their number"):
        BalancedDefaultTrainer.test(other, load(other), ByNumber())
    assert WithNames.test(other, load(other))["bbox"]["AP"] == 100
    assert WithNames.given == ORDER
    ours = [VOCDetectionEvaluator(other.DATASETS.TEST[0], class_names=ORDER)]
    assert BalancedDefaultTrainer.test(other, load(other), ours)["bbox"]["AP"] == 100


def test_build_evaluator_alone_goes_by_the_training_set(register, config):
    cfg = config(register(ORDER), register(["blue"]))
    evaluator = BalancedDefaultTrainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert evaluator.class_names == ORDER
    cfg.DATASETS.TRAIN = ("not_registered",)
    evaluator = BalancedDefaultTrainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert evaluator.class_names == ["blue"]
    cfg.DATASETS.TRAIN = (register(["red"]),)
    with pytest.raises(UserError, match="does not have: 'blue'"):
        BalancedDefaultTrainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
