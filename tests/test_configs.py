"""Every file of configs/: instantiated, trained for a step, evaluated, saved and loaded.

For a step and an evaluation these are replaced: by `tiny` the data sets, sizes of images, crops and
canvas, batch size (2), worker processes (none), device and output folder; by the test the seed,
the weights, for class weights the classes' counts and the iteration, which is the last, and the
score that a detection needs. All else is as written.
"""

import gc
import json
import math
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import OmegaConf
from PIL import Image

from iou_balanced.data import register_coco_json
from iou_balanced.engine import do_test, load_config
from iou_balanced.engine.class_balance import class_balances
from iou_balanced.engine.loader import build_train_loader

from .ssd_sampling import unsampled_parameters

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    str(path.relative_to(ROOT / "configs"))
    for path in (ROOT / "configs").glob("*/*.py")
    if path.parent.name != "common"
)
# What a variant's name ends with, and what it may change beside the losses and the output folder.
# The longest first: each variant is compared with the file whose name lacks the ending.
TEST_DEV = {
    "datasets.test",
    "dataloader.test.dataset.names",
    "dataloader.evaluator.dataset_name",
    "dataloader.evaluator.result_file",
    "train.best_checkpoint.metric",
}
ENDINGS = {
    "_iou_balanced_cls": set(),
    "_iou_balanced_loc": set(),
    "_iou_balanced": set(),
    "_bofl": set(),
    "_test_dev": TEST_DEV,
}


# What a user has to say.
REQUIRED = {"Photos": ["datasets.train.root=photos", "model.num_classes=10"]}


def load(file, *overrides):
    required = REQUIRED.get(Path(file).parent.name, [])
    return load_config(str(ROOT / "configs" / file), [*required, *overrides])


def flat(node, prefix=""):
    """{"a.b.0": leaf} of a container; empty lists and dicts are leaves."""
    if isinstance(node, (dict, list)) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for n, child in items for k, v in flat(child, f"{prefix}{n}.").items()}
    return {prefix[:-1]: node}


def contents(file):
    return flat(OmegaConf.to_container(load(file), resolve=True))


def arguments(node):
    """{"a.b.0": text} of a LazyConfig; a saved one has names in the place of classes."""
    leaves = flat(OmegaConf.to_container(node, resolve=True))
    return {k: repr(_convert_target_to_string(v) if callable(v) else v) for k, v in leaves.items()}


def ending_of(file):
    return next((e for e in ENDINGS if file.removesuffix(".py").endswith(e)), None)


def loss_node(model):
    """The detector, or the box head of an R-CNN; of a config, or of the model itself."""
    is_rcnn = "roi_heads" in model if OmegaConf.is_config(model) else hasattr(model, "roi_heads")
    return model.roi_heads.box_predictor if is_rcnn else model


def num_classes(model):
    return model.roi_heads.num_classes if "roi_heads" in model else model.num_classes


@pytest.fixture
def free_memory():
    """A config and the model in it refer to each other: else several of them stay for a while."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory):
    """Number of classes -> names of tiny data sets: train, test, bare (without annotations)."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    images = []
    # Both orientations, because the loader groups by aspect ratio. The middle two are the test's.
    for i, (height, width) in enumerate([(96, 128), (104, 120), (128, 96), (120, 100)], start=1):
        name = f"{i}.png"
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": i, "file_name": name, "height": height, "width": width})
    names = {}
    for classes in (80, 20, 10, 8):
        categories = [{"id": k + 1, "name": f"class {k}"} for k in range(classes)]
        boxes = [
            {
                "id": 2 * image["id"] + n,
                "image_id": image["id"],
                "category_id": (image["id"] * 3 + n) % classes + 1,
                "bbox": [8 + 10 * n, 12, 40, 50],
                "area": 2000,
                "iscrowd": 0,
            }
            for image in images
            for n in range(2)
        ]
        contents = {
            "train": {"images": images, "annotations": boxes},
            "test": {"images": images[1:3], "annotations": boxes[2:6]},
            "bare": {"images": images[1:3]},
        }
        names[classes] = {}
        for kind, content in contents.items():
            path = folder / f"{kind}_{classes}.json"
            path.write_text(json.dumps({"categories": categories, **content}))
            name = f"configs_{kind}_{classes}"
            names[classes][kind] = register_coco_json(name=name, json_file=path, image_root=folder)
    return names


def tiny(file, data_sets, folder):
    """The config with other data sets, of as many classes, and sizes of images, crops and canvas;
    with batches of 2, no worker processes, the CPU as device, and `folder` for its output.
    """
    cfg = load(file)
    names = data_sets[num_classes(cfg.model)]
    cfg.datasets.train = names["train"]
    cfg.datasets.test = names["bare" if ending_of(file) == "_test_dev" else "test"]
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    for split in ("train", "test"):
        for augmentation in cfg.dataloader[split].mapper.augmentations:
            if "short_edge_length" in augmentation:
                augmentation.short_edge_length, augmentation.max_size = 64, 96
                if "sample_style" in augmentation:
                    augmentation.short_edge_length = (56, 64)
            if "shape" in augmentation:  # SSD: the smallest that its last layers can do with
                augmentation.shape = (260, 260)
            if "size" in augmentation:  # CenterNet's crop, and the canvas of model and test images
                augmentation.size = (64, 64)
    cfg.train.device = "cpu"
    cfg.train.output_dir = str(folder)
    return cfg


def give_weights(model):
    """In the place of trained ones, which keep activations small through FrozenBN's constants."""
    if isinstance(model, FCOS):
        # Else the sides of the few positives here can all be behind the ReLU of its distances.
        torch.nn.init.ones_(model.head.bbox_pred.bias)
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    if not hasattr(bottom_up, "stages"):  # VGG has no constants
        first = next(m for m in bottom_up.modules() if isinstance(m, torch.nn.Conv2d))
        first.weight.data /= 100
        for m in bottom_up.modules():  # timm's ResNets start with blocks that add nothing
            if isinstance(m, torch.nn.BatchNorm2d) and not m.weight.any():
                torch.nn.init.constant_(m.weight, 0.2)
        return
    bottom_up.stem.conv1.norm.weight.data /= 255 / model.pixel_std.mean()
    for stage in bottom_up.stages:
        for block in stage:
            last = [m for m in (block.conv1, block.conv2, getattr(block, "conv3", None)) if m][-1]
            last.norm.weight.data *= 0.2


def too_small(p, optimizer):
    """A scale or shift that the next BatchNorm cancels has rounding errors for a gradient."""
    lr = optimizer.param_groups[0]["lr"]
    return (lr * p.grad.abs() < 1e-7 * p.detach().abs()).all()


def test_there_are_files():
    assert {"COCO/retinanet_R_50_FPN_1x_iou_balanced.py", "Digits/retinanet_small.py"} <= set(FILES)


@pytest.mark.usefixtures("free_memory")
@pytest.mark.parametrize("file", FILES)
def test_a_step_and_an_evaluation(file, data_sets, tmp_path):
    cfg = tiny(file, data_sets, tmp_path)
    # Weights, order of the images and crops are the same in every run.
    cfg.train.seed = 0
    seed_all_rng(0)
    model = instantiate(cfg.model)
    give_weights(model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    for class_balance in class_balances(model).values():
        # These few images do not show every class; in the last iteration weights are in force.
        class_balance.set_class_counts(range(1, class_balance.num_classes + 1))
        class_balance.set_iteration(11, 12)
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 2 and all("gt_masks" not in x["instances"].get_fields() for x in batch)
    with EventStorage(), unsampled_parameters(model) as unsampled:
        losses = model.train()(batch)
    sum(losses.values()).backward()
    if isinstance(model, FCOS):
        expected = {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"}
    else:
        rpn = {"loss_rpn_cls", "loss_rpn_loc"} if hasattr(model, "proposal_generator") else set()
        expected = {"loss_cls", "loss_box_reg"} | rpn
    assert set(losses) == expected
    assert all(math.isfinite(x.item()) and x > 0 for x in losses.values())
    optimizer.step()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), name
            at_rest = name in unsampled
            assert p.grad.any() != at_rest, name
            assert p.isfinite().all() and (
                at_rest or not torch.equal(p, before[name]) or too_small(p, optimizer)
            ), name
        else:
            assert torch.equal(p, before[name]), name

    loss_node(model).test_score_thresh = 0.0  # else one that has learned nothing detects nothing
    results = do_test(cfg, model)
    detector = file.partition("/")[2].partition("_")[0]
    written = tmp_path / f"inference/detections_test-dev2017_{detector}_results.json"
    if ending_of(file) == "_test_dev":
        assert results == {} and json.loads(written.read_text())
    else:
        assert 0 <= results["bbox"]["AP"] <= 100 and not written.exists()


def description(node, described):
    """Of the whole model: the losses with their numbers, and each layer with its shape."""
    key = repr(sorted(arguments(node).items()))
    if key not in described:  # what one text says is built once
        # Names and shapes need no memory for the values.
        with torch.device("meta"):
            model = instantiate(node)
        described[key] = repr(model), [(k, v.shape) for k, v in model.state_dict().items()]
    return described[key]


@pytest.mark.parametrize("file", FILES)
def test_saved_and_loaded_it_is_the_same_config(file, tmp_path):
    # Detectron2's own lazyconfig_train_net.py loads the file by LazyConfig.
    cfg = LazyConfig.load(str(ROOT / "configs" / file))
    cfg = LazyConfig.apply_overrides(cfg, REQUIRED.get(Path(file).parent.name, []))
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(cfg)
    described, descriptions = {}, []
    for source in (cfg, load(file)):
        LazyConfig.save(source, str(tmp_path / "config.yaml"))
        again = LazyConfig.load(str(tmp_path / "config.yaml"))
        assert again.train == source.train
        descriptions += [description(x.model, described) for x in (again, source)]
    for other in descriptions[1:]:
        assert other == descriptions[0]


@pytest.mark.parametrize("file", [file for file in FILES if ending_of(file)])
def test_a_variant_differs_from_its_baseline_in_the_losses_only(file):
    ending = ending_of(file)
    baseline = f"{file.removesuffix('.py').removesuffix(ending)}.py"
    assert baseline in FILES
    ours, theirs = contents(file), contents(baseline)
    changed = {
        key
        for key in {*ours, *theirs}
        if key not in ours or key not in theirs or ours[key] != theirs[key]
    }
    holder = ("model.", "model.roi_heads.box_predictor.")
    losses = {
        k
        for k in changed
        if k.startswith(
            tuple(f"{h}{n}" for h in holder for n in ("cls_loss.", "box_loss.", "class_balance."))
        )
    }
    assert changed - losses == {"train.output_dir"} | ENDINGS[ending]
    assert bool(losses) != (ending == "_test_dev")


@pytest.mark.parametrize("file", [file for file in FILES if ending_of(file)])
def test_a_variant_has_15_lines_of_code_or_fewer(file):
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    lines, statement = set(), []
    with open(ROOT / "configs" / file, "rb") as f:
        for token in tokenize.tokenize(f.readline):
            if token.type not in {*no_code, tokenize.ENCODING}:
                statement.append(token)
            elif token.type == tokenize.NEWLINE:
                if any(t.type != tokenize.STRING for t in statement):  # no docstring
                    lines.update(n for t in statement for n in range(t.start[0], t.end[0] + 1))
                statement = []
    assert 0 < len(lines) <= 15


def test_each_config_has_an_output_folder_of_its_own_and_a_plain_name():
    folders = {file: load(file).train.output_dir for file in FILES}
    assert len(set(folders.values())) == len(FILES)
    for file, folder in folders.items():
        assert Path(folder).name == Path(file).stem
        assert Path(file).stem.replace("_", "").isalnum(), file
