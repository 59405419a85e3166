"""configs/Cityscapes against MMDetection's settings and the paper's Table 6."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from iou_balanced.engine import do_test, load_config
from iou_balanced.engine.class_mapping import ClassMapping
from iou_balanced.engine.lazy_class_names import init_classes_of, training_classes
from iou_balanced.engine.loader import build_train_loader
from iou_balanced.engine.train import check_config

from .cityscapes_tree import TRAIN, VAL, make_cityscapes

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(path.name for path in (ROOT / "configs/Cityscapes").glob("*.py"))
COCO = {50: "retinanet_R_50_FPN_1x", 101: "retinanet_R_101_FPN_1x"}


def load(file, *overrides):
    return load_config(str(ROOT / "configs/Cityscapes" / file), list(overrides))


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = make_cityscapes(tmp_path / "cityscapes", "train", TRAIN)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return make_cityscapes(root, "val", VAL)


def test_the_rows_of_table_6_are_all_there():
    names = [f"retinanet_R_{d}_FPN{end}.py" for d in (50, 101) for end in ("", "_iou_balanced")]
    assert sorted(names) == FILES


@pytest.mark.parametrize("file", FILES)
def test_settings(file):
    cfg = load(file)
    depth = 101 if "R_101" in file else 50
    assert cfg.model.backbone.bottom_up.stages.depth == depth
    assert cfg.model.num_classes == 8
    assert cfg.train.output_dir == f"./output/cityscapes/{file.removesuffix('.py')}"
    # Both start from the COCO baseline, which is where its own config puts it.
    coco = load_config(str(ROOT / f"configs/COCO/{COCO[depth]}.py"), [])
    assert cfg.train.init_checkpoint == f"{coco.train.output_dir}/model_final.pth"
    assert MetadataCatalog.get(cfg.train.init_classes).thing_classes[:2] == ["person", "bicycle"]

    balanced = "iou_balanced" in file
    cls_loss, box_loss = cfg.model.cls_loss, cfg.model.box_loss
    assert cls_loss.get("eta") == box_loss.get("lam") == (1.5 if balanced else None)
    assert box_loss.get("weight") == ("auto" if balanced else None)
    assert box_loss.beta == 0.11

    assert cfg.dataloader.train.total_batch_size == cfg.train.reference_batch_size == 8
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (
        0.01,
        0.9,
        1e-4,
    )
    # 64 epochs of ceil(2975 / 8) = 372 iterations, evaluated every 8; the drop is after 56.
    assert cfg.train.max_iter == 64 * 372
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 8 * 372
    multiplier = instantiate(cfg.lr_multiplier)
    rates = [multiplier(i / cfg.train.max_iter) for i in range(cfg.train.max_iter)]
    assert rates[0] == pytest.approx(0.001) and rates[250] == pytest.approx(0.5005, rel=1e-3)
    drops = [i for i in range(501, len(rates)) if rates[i] != rates[i - 1]]
    assert drops == [56 * 372] and rates[500] == 1.0 and rates[-1] == pytest.approx(0.1)


def test_scales():
    cfg = load("retinanet_R_50_FPN.py")
    image = np.zeros((1024, 2048, 1), np.uint8)
    resize, flip = instantiate(cfg.dataloader.train.mapper.augmentations)
    np.random.seed(0)
    sizes = [resize.get_transform(image) for _ in range(2000)]
    heights = {t.new_h for t in sizes}
    assert (min(heights), max(heights)) == (800, 1024) and len(heights) > 200
    assert all(t.new_w == 2 * t.new_h for t in sizes)
    assert (flip.prob, flip.horizontal, flip.vertical) == (0.5, True, False)
    (resize,) = instantiate(cfg.dataloader.test.mapper.augmentations)
    transform = resize.get_transform(image)
    assert (transform.new_h, transform.new_w) == (1024, 2048)


def test_the_classes_that_coco_has(root):
    cfg = load("retinanet_R_50_FPN.py")
    mapping = ClassMapping(source=init_classes_of(cfg), target=training_classes(cfg).names)
    names = {mapping.target[i]: mapping.source[j] for i, j in mapping.shared}
    assert names == {name: name for name in mapping.target if name != "rider"}
    assert len(names) == 7


def test_data_and_evaluation(root, tmp_path):
    cfg = load("retinanet_R_50_FPN.py", "train.device=cpu", f"train.output_dir={tmp_path}/out")
    check_config(cfg)
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    batch = next(iter(build_train_loader(cfg)))
    boxes = {Path(x["file_name"]).name.split("_")[0]: x["instances"].gt_boxes for x in batch}
    assert set(boxes) <= {"aachen", "bochum"}  # and not the image without a box
    assert all(len(boxes[city]) == {"aachen": 5, "bochum": 1}[city] for city in boxes)  # no crowd

    found = []

    def nothing(images):
        found.extend(images)
        return [{"instances": x} for x in _no_instances(images)]

    model = torch.nn.Module()
    model.forward = nothing
    results = do_test(cfg, model)
    assert results["bbox"]["AP"] == 0 and "AP-rider" in results["bbox"]
    assert [x["image"].shape[1:] for x in found] == [(1024, 2048)] * 2


def _no_instances(images):
    for image in images:
        empty = Instances((image["height"], image["width"]))
        empty.pred_boxes = Boxes(torch.zeros(0, 4))
        empty.scores, empty.pred_classes = torch.zeros(0), torch.zeros(0).long()
        yield empty


@pytest.mark.parametrize("file", FILES)
def test_saved_and_loaded(file, tmp_path):
    cfg = load(file)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.train == cfg.train
    assert again.dataloader.test.dataset.names.split == "val"
