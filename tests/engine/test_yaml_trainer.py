"""`BalancedDefaultTrainer`: CenterNet with class weights from a yaml config, end to end."""

from types import MethodType

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_train_loader
from detectron2.engine import DefaultPredictor, HookBase
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from iou_balanced.backbones import TimmBackbone, imagenet
from iou_balanced.data import centernet_augmentations
from iou_balanced.engine import BalancedDefaultTrainer, ClassBalanceHook, UserError
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

NAME = "yaml_trainer_photos"
# Box and class of the objects in four images of 48 x 96 (height x width), one without any: 6, 2
# and 1 of the classes. Eq. 5: alpha = 9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1) = 0.5, 1.5, 3.
BOX = [12, 6, 36, 30]
OBJECTS = [[0, 0, 1], [0, 0, 0], [], [0, 1, 2]]
YAML = """
MODEL:
  META_ARCHITECTURE: CenterNet
  BACKBONE: {NAME: build_centernet_backbone}
  DEVICE: cpu
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  CENTERNET: {NUM_CLASSES: 3, BACKBONE: mobilenetv2_050, CROP_SIZE: [64, 64], FIT_SIZE: [64, 64]}
  CLASS_BALANCE: {NAME: BalanceOriented, ETA: 1, SCHEDULE: linear, TOTAL_EPOCHS: 4,
                  DEFERRED_EPOCHS: 0}
  IOU_BALANCED: {LOC_WEIGHT: 1.0, LOC_NORMALIZE: True}
INPUT: {FORMAT: RGB}
DATASETS: {TRAIN: [yaml_trainer_photos], TEST: [yaml_trainer_photos]}
DATALOADER: {NUM_WORKERS: 0, FILTER_EMPTY_ANNOTATIONS: False}
SOLVER: {OPTIMIZER: ADAM, BASE_LR: 0.0005, WEIGHT_DECAY_NORM: 0.0001, IMS_PER_BATCH: 2, MAX_ITER: 4,
         CHECKPOINT_PERIOD: 2}
"""


@pytest.fixture
def photos(tmp_path):
    """Registers the data set; counts how often it is read."""
    records, reads = [], []
    for i, classes in enumerate(OBJECTS):
        file = tmp_path / f"{i}.png"
        pixels = np.random.RandomState(i).randint(0, 256, (48, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        objects = [
            {"bbox": BOX, "bbox_mode": BoxMode.XYXY_ABS, "category_id": k, "iscrowd": 0}
            for k in classes
        ]
        # A crowd is not counted.
        objects += [{**o, "iscrowd": 1} for o in objects[-1:]]
        records.append(
            {"file_name": str(file), "image_id": i, "height": 48, "width": 96}
            | {"annotations": objects}
        )

    def read():
        reads.append(len(records))
        return records

    DatasetCatalog.register(NAME, read)
    MetadataCatalog.get(NAME).set(thing_classes=["cat", "dog", "emu"])
    yield records, reads
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def config(photos, tmp_path):
    cfg = get_cfg()
    for add_config in (add_centernet_config, add_class_balance_config, add_iou_balanced_config):
        add_config(cfg)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(YAML))
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


class Watch(HookBase):
    """Records the class weights of each iteration; ends the training after `stop` of them."""

    def __init__(self, stop=None):
        self.stop, self.weights = stop, {}

    def after_step(self):
        weights = self.trainer.model.class_balance.weights_in_force.own
        assert weights.shape == (2, 3) and torch.equal(weights[0], weights[1])
        self.weights[self.trainer.iter] = weights[0].tolist()
        if self.trainer.iter + 1 == self.stop:
            raise InterruptedError


def train(cfg, *, resume=False, stop=None):
    trainer = BalancedDefaultTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    watch = Watch(stop)
    trainer.register_hooks([watch])
    if stop is None:
        trainer.train()
    else:
        with pytest.raises(InterruptedError):
            trainer.train()
    return trainer, watch.weights


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


def test_a_resume_with_other_data_is_refused(config, photos):
    train(config, stop=2)
    photos[0][0]["annotations"][0]["category_id"] = 2
    with pytest.raises(UserError, match=r"class_balance.*of class 'cat' 6 there and 5 here"):
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


def test_an_unknown_optimizer(config):
    config.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(UserError, match=r"SOLVER\.OPTIMIZER=LION: give 'SGD' or 'ADAM'"):
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
