"""CenterNet on a GPU: the CPU's numbers, float16, and what a step waits for."""

import contextlib
import warnings

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.utils.events import EventStorage

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    Equalization,
    LinearSchedule,
    PenaltyReducedFocalLoss,
)
from iou_balanced.modeling.centernet.targets import center_targets

from ...on_gpu import DEVICE, assert_same_step, build_on, needs_gpu
from ..detector_mixin import BOXES, NUM_CLASSES, gradients, make_input, without_boxes
from .test_centernet import both_balanced, small_centernet

pytestmark = needs_gpu


def balance_oriented():
    config = small_centernet()
    config.class_balance = L(BalanceOriented)(
        num_classes=NUM_CLASSES,
        schedule=L(LinearSchedule)(total_epochs=10, deferred_epochs=1),
        class_counts=[60, 30, 10],
    )
    return config


def deformable():
    config = small_centernet()
    config.backbone.deformable = True
    return config


configs = pytest.mark.parametrize(
    "config", [small_centernet, balance_oriented, both_balanced, deformable]
)


@pytest.fixture
def batch():
    """Three objects, two of a class that share their centre, and none."""
    torch.manual_seed(0)
    return [make_input(), make_input(BOXES[:1] * 2, [2, 2]), without_boxes()]


@configs
def test_losses_and_gradients_are_the_cpus(config, batch):
    assert_same_step(config, batch)


@configs
def test_float16(config, batch):
    """With a scale that float16 can hold: a larger one is lowered by the scaler's first steps."""
    model = build_on(config(), DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=256.0)
    for _ in range(2):
        optimizer.zero_grad()
        with EventStorage(), torch.autocast(DEVICE, dtype=torch.float16):
            losses = model(batch)
        scaler.scale(sum(losses.values())).backward()
        scaler.unscale_(optimizer)
        for name, loss in losses.items():
            assert loss.dtype == torch.float32 and loss.isfinite() and loss > 0, name
        for name, grad in gradients(model).items():
            assert grad is not None and grad.isfinite().all(), name
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 256


def many_objects():
    """Four images of 0 to 60 objects, some smaller than a cell, some beyond the map."""
    generator = torch.Generator().manual_seed(0)
    boxes, classes = [], []
    for number in (60, 0, 7, 33):
        low = torch.rand(number, 2, generator=generator) * 130 - 10
        size = 1 + 100 * torch.rand(number, 2, generator=generator) ** 4
        boxes.append(torch.cat([low, low + size], dim=1))
        classes.append(torch.randint(0, NUM_CLASSES, (number,), generator=generator))
    boxes[2][1], classes[2][1] = boxes[2][0], classes[2][0]  # in one cell
    return boxes, classes


def draw(device):
    boxes, classes = ([x.to(device) for x in part] for part in many_objects())
    return boxes, classes, center_targets(boxes, classes, NUM_CLASSES, (28, 30))


def test_targets_are_the_cpus():
    (*_, ours), (*_, expected) = draw(DEVICE), draw("cpu")
    assert 60 < len(expected.cells) < 100  # some lie beyond the map
    for name, value in ours._asdict().items():
        if name == "num_centers":
            assert value == expected.num_centers
            continue
        assert value.device.type == DEVICE, name
        # Of the Gaussians, by the rounding of exp.
        tolerance = 1e-6 if name == "heatmap" else 0
        torch.testing.assert_close(
            value.cpu(), getattr(expected, name), rtol=tolerance, atol=0, msg=name
        )
    assert torch.equal(ours.heatmap.cpu() == 1, expected.heatmap == 1)
    values = torch.rand(len(expected.cells))
    per_center = ours.max_per_center(values.to(DEVICE)).cpu()
    assert len(per_center) < len(values)
    assert torch.equal(per_center, expected.max_per_center(values))


@contextlib.contextmanager
def sync_mode(mode):
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def count_waits(function) -> int:
    with warnings.catch_warnings(record=True) as caught, sync_mode("warn"):
        warnings.simplefilter("always")
        function()
    return sum("synchronizing CUDA operation" in str(x.message) for x in caught)


class TestWaits:
    """How often the CPU waits for the GPU, which has nothing to do then until the next kernel."""

    def test_they_are_counted(self):
        x = torch.ones(3, device=DEVICE)
        assert count_waits(lambda: x + 1) == 0
        assert count_waits(lambda: (x.sum().item(), x.tolist())) == 2

    def test_targets(self):
        """Once, for the numbers of objects, cells, centres and bad boxes."""
        boxes, classes, targets = draw(DEVICE)
        waits = count_waits(lambda: center_targets(boxes, classes, NUM_CLASSES, (28, 30)))
        assert waits == 1
        values = torch.rand(len(targets.cells), device=DEVICE)
        assert count_waits(lambda: targets.max_per_center(values)) == 0

    @pytest.mark.parametrize(
        "class_balance",
        [
            None,
            BalanceOriented(num_classes=3, schedule=None, class_counts=[60, 30, 10]),
            ClassBalanced(num_classes=3, class_counts=[60, 30, 10]),
            Equalization(num_classes=3, image_counts=[40, 25, 8], tail_ratio=0.45),
        ],
        ids=["plain", "bofl", "cbl", "eql"],
    )
    def test_heat_map_loss_and_class_weights(self, class_balance):
        """Never: class weights come from labels as the data loader gives them, on the CPU."""
        classes = many_objects()[1]
        heatmap = draw(DEVICE)[2].heatmap
        logits = torch.zeros_like(heatmap).requires_grad_()
        cls_loss = PenaltyReducedFocalLoss()
        if class_balance is not None:
            class_balance.to(DEVICE)
        with sync_mode("error"):
            weight = None if class_balance is None else class_balance(classes, classes)
            cls_loss(logits, heatmap, class_weight=weight).backward()
        assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0
