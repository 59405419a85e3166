"""`BalancedDefaultTrainer`: CenterNet with class weights from a yaml config, end to end."""

import json
import re
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import MetadataCatalog, build_detection_train_loader
from detectron2.engine import DefaultPredictor
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, Instances
from PIL import Image

from iou_balanced.backbones import TimmBackbone, imagenet
from iou_balanced.data import ClassCounts, centernet_augmentations
from iou_balanced.engine import BalancedDefaultTrainer, ClassBalanceHook, UserError
from iou_balanced.engine.yaml_logit_adjustment import adjusted_scores, adjustment_of
from iou_balanced.engine.yaml_trainer import _yaml_key
from iou_balanced.evaluation import VOCDetectionEvaluator

from .yaml_photos import BOX, NAME, train


@pytest.fixture
def config(yaml_config):
    return yaml_config


@pytest.fixture
def timm_weights(monkeypatch, tmp_path):
    """What "timm://" gives in the place of the hub's."""
    weights = TimmBackbone(name="mobilenetv2_050", out_features=["c5"]).state_dict()
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(imagenet, "_timm", lambda name: weights)
    return weights


def test_end_to_end(config, photos, timm_weights):
    config.MODEL.WEIGHTS = "timm://mobilenetv2_050"
    trainer = BalancedDefaultTrainer(config)
    assert len(photos[1]) == 1  # the data set is read once
    trainer.resume_or_load(resume=False)
    (loaded,) = [x for x in trainer.model.modules() if isinstance(x, TimmBackbone)]
    for name, value in timm_weights.items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert type(trainer.optimizer) is torch.optim.Adam
    assert {(g["lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups} == {
        (0.0005 * config.SOLVER.WARMUP_FACTOR, 0.0001)
    }
    batch = next(iter(trainer.build_train_loader(config)))
    assert [x["image"].shape for x in batch] == [(3, 64, 64)] * 2

    # 1 + lambda (alpha - 1), Eq. 7, with lambda = 0, 1/3, 2/3, 1 in the four epochs.
    _, before = train(config, stop=2)
    assert before[0] == [1, 1, 1]
    assert before[1] == pytest.approx([5 / 6, 7 / 6, 5 / 3])
    trainer, after = train(config, resume=True)
    assert trainer.start_iter == 2 and sorted(after) == [2, 3]
    assert after[2] == pytest.approx([2 / 3, 4 / 3, 7 / 3])
    assert after[3] == pytest.approx([0.5, 1.5, 3])

    model = trainer.model.eval()
    x, *_ = next(iter(trainer.build_test_loader(config, NAME)))
    assert x["image"].shape == (3, 64, 64)
    # On the canvas the image is 64 x 32 pixels, 2/3 of itself, below 16 black lines.
    assert not x["image"][:, :15].any() and x["image"][:, 17:47].any()
    with torch.no_grad():
        (result,) = model([x])
    found = result["instances"]
    assert found.image_size == (48, 96) and len(found) > 0
    assert (found.pred_boxes.tensor <= torch.tensor([96, 48, 96, 48])).all()
    # So is the predictor's, with the same augmentation.
    config.MODEL.WEIGHTS = str(trainer.checkpointer.get_checkpoint_file())
    predictor = DefaultPredictor(config)
    (predictor.aug,) = centernet_augmentations(config, is_train=False)
    image = np.asarray(Image.open(x["file_name"]))[:, :, ::-1]
    predicted = predictor(image)["instances"]
    assert torch.equal(predicted.pred_boxes.tensor, found.pred_boxes.tensor)
    with pytest.raises(ValueError, match=r"has to be the mapper's only test augmentation"):
        DefaultPredictor(config)(image)

    def object_on_canvas(self, images, features, predictions):
        result = Instances((64, 64))
        result.pred_boxes = Boxes(torch.tensor([[8.0, 20, 24, 36]]))  # BOX * 2/3, 16 down
        result.scores, result.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.int64)
        return [result]

    model.forward_inference = MethodType(object_on_canvas, model)
    (result,) = model([x])
    torch.testing.assert_close(
        result["instances"].pred_boxes.tensor, torch.tensor([BOX], dtype=torch.float32)
    )

    # Cats: of 6 this finds 3, in the first, second and fourth image, and between them one in the
    # third that is none. Precision is 1 up to recall 1/3, at 34 of COCO's 101 points, and 3/4 up to
    # 1/2, at 17; dogs and emus are not found.
    results = trainer.test(config, model)["bbox"]
    assert results["AP-cat"] == pytest.approx(100 * (34 + 17 * 0.75) / 101)
    assert (results["AP-dog"], results["AP-emu"]) == (0, 0)
    assert results["AP"] == results["AP50"] == pytest.approx(results["AP-cat"] / 3)
    # By the class counts of the training.
    assert {"AP_tail", "AP_head"} <= set(results)
    folder = Path(config.OUTPUT_DIR) / "inference"
    assert (folder / "coco_metrics.csv").exists() and (folder / "class_metrics.csv").exists()


def test_evaluation_in_training(config):
    """Also of a model without class weights."""
    config.MODEL.CLASS_BALANCE.NAME = ""
    config.SOLVER.MAX_ITER = 1
    trainer = BalancedDefaultTrainer(config)
    trainer.train()
    results = trainer._last_eval_results["bbox"]
    assert 0 <= results["AP"] <= 100 and {"AP_tail", "AP_head"} <= set(results)
    assert trainer.storage.latest()["bbox/AP"][0] == results["AP"]
    counts = ClassCounts.load(Path(config.OUTPUT_DIR, "class_counts.json"))
    assert (counts.instances, counts.images) == ((6, 2, 1), (3, 2, 1))
    assert len(counts.fractal_dimensions) == 3


def scores_of(config, trainer):
    """Of all detections of an evaluation, by class."""
    BalancedDefaultTrainer.test(config, trainer.model)
    file = Path(config.OUTPUT_DIR, "inference", "coco_instances_results.json")
    found = json.loads(file.read_text())
    assert len(found) > 0
    return {k: sorted(x["score"] for x in found if x["category_id"] == k) for k in range(3)}


@pytest.mark.parametrize("name", ["PriorAdjustment", "FractalAdjustment"])
def test_scores_adjusted_in_an_evaluation(config, name):
    config.MODEL.CLASS_BALANCE.NAME = ""
    config.SOLVER.MAX_ITER = 1
    trainer = BalancedDefaultTrainer(config)
    trainer.train()
    torch.nn.init.constant_(trainer.model.head.size[-1].bias, 4.0)  # else no box has a size
    plain = scores_of(config, trainer)
    config.TEST.LOGIT_ADJUSTMENT.NAME = name
    adjusted = scores_of(config, trainer)
    assert adjusted != plain and max(adjusted[2]) > max(adjusted[0])  # the rarest class goes up
    with pytest.raises(UserError, match=rf"LOGIT_ADJUSTMENT\.NAME={name} is for a trained model"):
        BalancedDefaultTrainer(config).train()
    config.TEST.LOGIT_ADJUSTMENT.NAME = ""
    assert scores_of(config, trainer) == plain  # nothing stays
    config.TEST.LOGIT_ADJUSTMENT.NAME = name
    # On several GPUs the model is wrapped.
    wrapped = torch.nn.Sequential()
    wrapped.module = trainer.model
    assert not trainer.model.head._forward_hooks
    with adjusted_scores(config, wrapped, None):
        assert len(trainer.model.head._forward_hooks) == 1
    assert not trainer.model.head._forward_hooks
    # A fine-tuning: the file beside the weights that it began with is of other data.
    other = Path(config.OUTPUT_DIR, "other", "class_counts.json")
    other.parent.mkdir()
    ClassCounts(("x", "y"), (1, 2), (1, 2), num_images=3).save(other)
    config.MODEL.WEIGHTS = str(other.with_name("model_final.pth"))
    assert scores_of(config, trainer) == adjusted
    Path(config.OUTPUT_DIR, "class_counts.json").unlink()
    other.unlink()
    with pytest.raises(UserError, match=r"there is no class_counts\.json .*CLASS_COUNTS=FILE"):
        BalancedDefaultTrainer.test(config, trainer.model)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NAME", "prior", "LOGIT_ADJUSTMENT.NAME=prior: give '', PriorAdjustment or Fractal"),
        ("STRENGTH", 1.0, "LOGIT_ADJUSTMENT.STRENGTH=1.0: PriorAdjustment has no such argument"),
        ("TAU", -1.0, "LOGIT_ADJUSTMENT.TAU=-1"),
        ("COUNTED", "boxes", "LOGIT_ADJUSTMENT.COUNTED=boxes: give instances or images"),
    ],
)
def test_bad_adjustments(config, key, value, message):
    config.TEST.LOGIT_ADJUSTMENT.NAME = "PriorAdjustment"
    config.TEST.LOGIT_ADJUSTMENT[key] = value
    with pytest.raises(UserError, match=re.escape(message)):
        BalancedDefaultTrainer(config).train()
    if key != "COUNTED":  # `test` alone, without a trainer
        with pytest.raises(UserError, match=r"LOGIT_ADJUSTMENT.*(prior|TAU|tau|STRENGTH)"):
            adjustment_of(config)


def test_a_training_without_names_and_test_sets(config, photos):
    """Its classes are not counted, which it does not need."""
    MetadataCatalog.remove(NAME)
    config.MODEL.CLASS_BALANCE.NAME, config.DATASETS.TEST = "", ()
    config.SOLVER.MAX_ITER = 1
    BalancedDefaultTrainer(config).train()
    assert not Path(config.OUTPUT_DIR, "class_counts.json").exists()


def test_classes_that_cannot_be_counted_are_told(config, photos, log):
    """Such as ids of another library, which Detectron2's mapper takes."""
    for x in photos[0]:
        for a in x["annotations"]:
            a["category_id"] = float(a["category_id"])
    config.MODEL.CLASS_BALANCE.NAME, config.SOLVER.MAX_ITER = "", 1
    config.DATASETS.TEST = ()
    BalancedDefaultTrainer(config).train()
    assert "The classes are not counted: " in log()
    config.MODEL.CLASS_BALANCE.NAME = "BalanceOriented"
    with pytest.raises(UserError, match="category_id to be a class"):
        BalancedDefaultTrainer(config)


def test_repeat_factors_stand_in_the_table(config, log):
    """With class weights and without, for Detectron2's sampler."""
    config.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    config.DATALOADER.REPEAT_THRESHOLD = 1.0
    for name in ("BalanceOriented", ""):
        config.MODEL.CLASS_BALANCE.NAME = name
        trainer = BalancedDefaultTrainer(config)
        (hook,) = hooks_of(trainer)
        # Shares of the images 3 / 4, 1 / 2, 1 / 4: factors 1.155, 1.414 and 2.
        assert hook._columns["repeat"] == pytest.approx([2 / 3**0.5, 2**0.5, 2.0])
        # Cats: two in an image with a dog, three with none, one with dog and emu.
        cats = 2 * 2**0.5 + 3 * 2 / 3**0.5 + 2
        assert hook._columns["instances an epoch"] == [round(cats), round(2**0.5 + 2), 2]
    assert "DATALOADER.REPEAT_THRESHOLD=1: an epoch has" in log()


@pytest.mark.parametrize(
    ("metadata", "metric"),
    [
        ({"evaluator_type": "pascal_voc", "year": 2007}, "11point"),  # Detectron2's
        ({"evaluator_type": "pascal_voc", "year": 2012}, "area"),
        ({"evaluator_type": "coco", "years": [2007]}, "11point"),  # `register_voc`'s
        ({"evaluator_type": "coco", "years": [2007, 2012]}, "area"),
    ],
)
def test_voc_is_evaluated_as_the_challenge_does(config, metadata, metric):
    MetadataCatalog.get(NAME).set(**metadata)
    config.DATASETS.TEST = (NAME, "another")
    evaluator = BalancedDefaultTrainer.build_evaluator(config, NAME)
    assert type(evaluator) is VOCDetectionEvaluator and evaluator._metric == metric
    # With several data sets each has its own folder.
    assert evaluator._output_dir == Path(config.OUTPUT_DIR) / "inference" / NAME


class OwnEvaluator(BalancedDefaultTrainer):
    class Evaluator(DatasetEvaluator):
        def evaluate(self):
            return {"own": {"metric": 7.0}}

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return cls.Evaluator()


def test_an_evaluator_of_ones_own(config):
    model = OwnEvaluator.build_model(config)
    assert OwnEvaluator.test(config, model) == {"own": {"metric": 7.0}}


def test_a_resume_with_other_data_is_refused(config, photos):
    train(config, stop=2)
    photos[0][0]["annotations"][0]["category_id"] = 2
    with pytest.raises(UserError, match=r"^MODEL\.CLASS_BALANCE: .*of class 'cat' 6 there and 5"):
        BalancedDefaultTrainer(config).resume_or_load(resume=True)
    config.MODEL.CLASS_BALANCE.ALLOW_OTHER_COUNTS = True
    BalancedDefaultTrainer(config).resume_or_load(resume=True)


class OwnLoader(BalancedDefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg)


def hooks_of(trainer):
    return [h for h in trainer._hooks if isinstance(h, ClassBalanceHook)]


def test_a_loader_of_ones_own(config):
    trainer = OwnLoader(config)
    assert len(hooks_of(trainer)) == 1
    assert trainer.model.class_balance.class_counts == [6, 2, 1]
    assert trainer.model.class_balance.image_counts == [3, 2, 1]


def test_statistics_are_not_of_the_class_weights(config):
    """What the error of a resume with other statistics names."""
    assert _yaml_key("class_balance", "intensity") == "MODEL.CLASS_BALANCE.INTENSITY"
    assert _yaml_key("class_balance", "") == "MODEL.CLASS_BALANCE"
    assert _yaml_key("cls_loss", "") == "MODEL.IOU_BALANCED.CLS_LOSS"


def test_without_class_weights(config, photos):
    config.MODEL.CLASS_BALANCE.NAME = ""
    config.SOLVER.OPTIMIZER = "SGD"
    trainer = BalancedDefaultTrainer(config)
    assert not hooks_of(trainer) and len(photos[1]) == 1
    assert type(trainer.optimizer) is torch.optim.SGD


def test_classes_without_names(config):
    MetadataCatalog.remove(NAME)
    with pytest.raises(UserError, match=rf"data set {NAME}: class weights.*thing_classes"):
        BalancedDefaultTrainer(config)


def test_a_class_without_objects(config, photos):
    """The message names the keys of a yaml file."""
    for x in photos[0]:
        x["annotations"] = [a for a in x["annotations"] if a["category_id"] != 2]
    message = r"no instance of 'emu', .* or give MODEL\.CLASS_BALANCE\.FLOOR=1, a number"
    with pytest.raises(UserError, match=message):
        BalancedDefaultTrainer(config)
    config.MODEL.CLASS_BALANCE.FLOOR = 1.0
    BalancedDefaultTrainer(config)


@pytest.mark.parametrize("name", ["BalanceOriented", ""])
def test_another_number_of_classes(config, name):
    config.MODEL.CLASS_BALANCE.NAME = name
    config.MODEL.CENTERNET.NUM_CLASSES = 80
    message = (
        rf"data set '{NAME}' \(DATASETS\.TRAIN\) has 3 classes \(cat, dog, emu\), but the "
        r"model 80: give MODEL\.CENTERNET\.NUM_CLASSES 3"
    )
    with pytest.raises(UserError, match=message):
        BalancedDefaultTrainer(config)


def test_class_weights_of_a_model_that_does_not_read_them(config):
    config.MODEL.META_ARCHITECTURE = "RetinaNet"
    config.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    config.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    config.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    config.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    config.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    config.MODEL.RETINANET.NUM_CLASSES = 3
    config.MODEL.WEIGHTS = ""
    message = r"META_ARCHITECTURE RetinaNet does not read MODEL\.CLASS_BALANCE\.NAME Balance"
    with pytest.raises(UserError, match=message):
        BalancedDefaultTrainer(config)


def test_an_unknown_optimizer(config):
    config.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(UserError, match=r"SOLVER\.OPTIMIZER=LION: give SGD or ADAM"):
        BalancedDefaultTrainer(config)


@pytest.mark.parametrize("architecture", ["BalancedRetinaNet", "CenterNet"])
def test_other_images_are_detectron2s(config, architecture):
    """Those of another detector, and of a CenterNet without a canvas."""
    if architecture == "BalancedRetinaNet":
        file = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
        data = config.DATASETS.clone()
        config.merge_from_file(file)
        config.DATASETS = data
    config.MODEL.META_ARCHITECTURE = architecture
    config.MODEL.CENTERNET.CANVAS = ""
    config.INPUT.MIN_SIZE_TRAIN, config.INPUT.MIN_SIZE_TEST = (32,), 24
    config.SOLVER.IMS_PER_BATCH = 2
    batch = next(iter(BalancedDefaultTrainer.build_train_loader(config)))
    assert [x["image"].shape for x in batch] == [(3, 32, 64)] * 2
    x, *_ = next(iter(BalancedDefaultTrainer.build_test_loader(config, NAME)))
    assert x["image"].shape == (3, 24, 48)
