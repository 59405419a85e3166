"""What every detector has to stand, and a small RetinaNet.

A detector joins with two lines:

    class TestMine(DetectorMixin):
        config, stock_config = staticmethod(my_config), staticmethod(stock_config)
"""

import copy
import math

import pytest
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

NUM_CLASSES = 3


def small_retinanet(norm="FrozenBN"):
    """The model zoo's RetinaNet with ResNet-18, 32 channels and 3 classes: a stock LazyConfig."""
    model = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py").model
    model.backbone.bottom_up.stages.depth = 18
    del model.backbone.bottom_up.stages.stride_in_1x1
    model.backbone.bottom_up.stages.norm = model.backbone.bottom_up.stem.norm = norm
    model.backbone.out_channels = 32
    model.backbone.top_block.in_channels = 512
    model.head.input_shape = [ShapeSpec(channels=32)] * 5
    model.head.conv_dims = [32]
    model.num_classes = NUM_CLASSES
    model.pixel_std = [57.375, 57.120, 58.395]
    return model


BOXES = [[8, 12, 60, 70], [40, 30, 90, 62], [5, 50, 40, 92]]
CLASSES = [0, 2, 1]


def make_input(boxes=BOXES, classes=CLASSES, size=(96, 112), **more):
    """Detectron2's input of one image: random pixels and these boxes (XYXY)."""
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": torch.rand(3, *size) * 255, "instances": instances, **more}


def without_boxes():
    return make_input([], [])


def build(config):
    torch.manual_seed(7)
    return instantiate(config).train()


def training_step(model, batch):
    """Losses by name, with gradients left in the parameters.

    What a model draws at random, as an R-CNN does its samples, is the same in every step.
    """
    model.zero_grad(set_to_none=True)
    with EventStorage(), torch.random.fork_rng():
        torch.manual_seed(11)
        losses = model(batch)
    sum(losses.values()).backward()
    return losses


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def check_finite(model, losses):
    for name, loss in losses.items():
        assert loss.isfinite() and loss.dim() == 0, name
    for name, grad in gradients(model).items():
        assert grad is not None, f"{name} has no gradient"
        assert grad.isfinite().all(), name


class DetectorMixin:
    """`config()` is the LazyConfig with this project's losses, `stock_config()` Detectron2's."""

    config = stock_config = None
    autocast_tolerance = 0.2

    @pytest.fixture(scope="class")
    def built(self):
        return build(self.config()), torch.get_rng_state()

    @pytest.fixture
    def model(self, built):
        model, state = built
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    def test_every_parameter_gets_its_gradient(self, model):
        losses = training_step(model, [make_input(), make_input(BOXES[:1], CLASSES[:1])])
        check_finite(model, losses)
        assert all(loss > 0 for loss in losses.values())
        for name, grad in gradients(model).items():
            assert grad.abs().max() > 0, f"the gradient of {name} is 0"

    @pytest.mark.parametrize("order", ["half empty", "empty first", "all empty", "one empty"])
    def test_images_without_boxes(self, model, order):
        batch = {
            "half empty": lambda: [make_input(), without_boxes()],
            "empty first": lambda: [without_boxes(), make_input()],
            "all empty": lambda: [without_boxes(), without_boxes()],
            "one empty": lambda: [without_boxes()],
        }[order]()
        check_finite(model, training_step(model, batch))

    def test_images_of_different_sizes(self, model):
        batch = [make_input(size=(96, 128)), make_input(size=(120, 100))]
        check_finite(model, training_step(model, batch))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_bad_pixels_give_a_loss_that_is_not_finite(self, model, value):
        batch = [make_input(), make_input()]
        batch[1]["image"][1, 10, 20] = value
        try:
            with EventStorage():
                losses = model(batch)
        except (ValueError, FloatingPointError) as error:
            assert "finite" in str(error) or "NaN" in str(error)
        else:
            assert not math.isfinite(sum(losses.values()).item())

    @pytest.mark.parametrize(
        "box", [[30, 20, 30, 60], [30, 20, 50, 20], [50, 20, 30, 60], [float("nan"), 0, 10, 10]]
    )
    def test_degenerate_box_names_image_and_box(self, model, box):
        batch = [make_input(), make_input([BOXES[0], box], [0, 1], file_name="street_7.png")]
        with pytest.raises(ValueError, match=r"image street_7\.png.* box 1 .*no area"):
            training_step(model, batch)

    @pytest.mark.parametrize("bad", [NUM_CLASSES, NUM_CLASSES + 5, -1])
    def test_class_out_of_range_names_image_and_box(self, model, bad):
        batch = [make_input(), make_input(BOXES[:2], [0, bad], image_id=34)]
        with pytest.raises(ValueError, match=rf"image 34.* box 1 has class {bad}.*num_classes=3"):
            training_step(model, batch)

    def test_ground_truth_missing(self, model):
        batch = [make_input(), {"image": torch.rand(3, 96, 112)}]
        with pytest.raises(ValueError, match=r"image 1 has no ground truth"):
            training_step(model, batch)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, model, dtype):
        batch = [make_input(), without_boxes()]
        is_half = dtype is torch.float16  # whose convolutions take CPUs long, oneDNN's the longest
        if is_half:
            size, boxes = (32, 40), [[side / 3 for side in box] for box in BOXES]
            batch = [make_input(boxes, size=size), make_input([], [], size=size)]
        single = training_step(model, batch)
        with torch.backends.mkldnn.flags(enabled=not is_half), torch.autocast("cpu", dtype=dtype):
            losses = training_step(model, batch)
        check_finite(model, losses)
        for name, loss in losses.items():
            assert loss.dtype == torch.float32, name
            assert loss.item() == pytest.approx(single[name].item(), rel=self.autocast_tolerance), (
                name
            )

    def test_callers_batch_is_not_touched(self, model):
        batch = [make_input(), without_boxes()]
        copies = [(x["image"].clone(), x["instances"].gt_boxes.clone()) for x in batch]
        training_step(model, batch)
        for x, (image, boxes) in zip(batch, copies, strict=True):
            assert set(x) == {"image", "instances"} and torch.equal(x["image"], image)
            assert torch.equal(x["instances"].gt_boxes.tensor, boxes.tensor)

    def test_saved_config_gives_the_same_model(self, tmp_path):
        config = self.config()
        path = str(tmp_path / "config.yaml")
        LazyConfig.save(DictConfig({"model": config}, flags={"allow_objects": True}), path)
        first, second = build(config), build(LazyConfig.load(path).model)
        assert repr(first) == repr(second)
        # The keys come back in another order, and with them the random numbers.
        second.load_state_dict(first.state_dict())
        batch = [make_input()]
        for a, b in zip(*(training_step(m, batch).values() for m in (first, second)), strict=True):
            assert torch.equal(a, b)

    def test_checkpoints_load_both_ways(self, tmp_path):
        ours, stock = build(self.config()), build(self.stock_config())
        # Moves the normaliser and whatever else the losses remember.
        training_step(ours, [make_input()])
        assert list(ours.state_dict()) == list(stock.state_dict())
        for source, target in [(ours, stock), (stock, ours)]:
            with torch.no_grad():
                for p in source.parameters():
                    p.add_(torch.rand_like(p))
            DetectionCheckpointer(source, str(tmp_path)).save("model")
            DetectionCheckpointer(target).load(str(tmp_path / "model.pth"))
            for name, value in source.state_dict().items():
                assert torch.equal(target.state_dict()[name], value), name

    def test_inference_is_the_stock_detectors(self):
        ours, stock = build(self.config()).eval(), build(self.stock_config()).eval()
        ours.load_state_dict(stock.state_dict())
        batch = [{"image": make_input()["image"], "height": 192, "width": 224}]
        for x in (ours, stock):
            # Of the detector itself, or of the box heads of an R-CNN.
            filters = [m for m in x.modules() if hasattr(m, "test_score_thresh")]
            assert filters
            for module in filters:
                module.test_score_thresh = 0.0
        with torch.no_grad():
            (a,), (b,) = ours(batch), stock(batch)
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
